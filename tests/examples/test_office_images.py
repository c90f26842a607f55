import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from office.console import UserError
from office.data import images, memory, tasks
from office.data.images import Images, Preprocessing
from office.options import Recipe, Runtime
from office.training.batches import Inputs
from office.training.runs import Run
from PIL import Image
from scipy.stats import chisquare
from torchvision.transforms import v2
from tqdm import tqdm

pytestmark = pytest.mark.filterwarnings("ignore:.*published")
CPU = torch.device("cpu")
PAPER = Preprocessing()


# Reading


@pytest.fixture
def photo() -> Image.Image:
    """An RGB image, 24 x 16, no two corners alike."""
    y, x = np.mgrid[:16, :24]
    return Image.fromarray(np.stack([x * 10, y * 15, 255 - x * 5 - y * 5], -1).astype(np.uint8))


def loaded(image: Image.Image, path: Path, **options: object) -> np.ndarray:
    image.save(path, **options)
    result = images.load_image(path)
    assert result.mode == "RGB"
    return np.asarray(result).astype(int)


def test_grey_images(photo: Image.Image, tmp_path: Path) -> None:
    grey = np.asarray(photo.convert("L")).astype(int)
    assert (loaded(photo.convert("L"), tmp_path / "l.png") == grey[..., None]).all()
    bits = loaded(photo.convert("1"), tmp_path / "1.png")
    assert (bits == np.asarray(photo.convert("1"))[..., None] * 255).all()
    for kind in ("png", "tiff"):
        deep = Image.fromarray((grey * 257).astype(np.uint16))
        assert (loaded(deep, tmp_path / f"16.{kind}") == grey[..., None]).all()
    wide = Image.fromarray((grey * 257).astype(np.int32))
    assert (loaded(wide, tmp_path / "32.tiff") == grey[..., None]).all()
    with pytest.raises(UserError, match=r"f\.tiff: floats from .* save it with values in \[0, 1\]"):
        loaded(photo.convert("F"), tmp_path / "f.tiff")


def test_cmyk_images(tmp_path: Path) -> None:
    # Ink: cyan absorbs red, black absorbs all.
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:8, :, 0] = 255
    inks[8:, :, 3] = 255
    pixels = loaded(Image.fromarray(inks, "CMYK"), tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(pixels[2, 2] - [0, 255, 255]).max() < 12
    assert np.abs(pixels[12, 2]).max() < 12


def test_palette_images(photo: Image.Image, tmp_path: Path) -> None:
    palette = photo.quantize(16)
    exact = np.asarray(palette.convert("RGB"))
    assert (loaded(palette, tmp_path / "p.png") == exact).all()
    assert (loaded(palette, tmp_path / "p.gif") == exact).all()
    clear = np.asarray(palette) == 3
    for kind, transparency in (
        ("gif", 3),
        ("png", 3),
        ("png", bytes([255, 255, 255, 0, *[255] * 12])),
    ):
        path = tmp_path / f"clear.{kind}"
        pixels = loaded(palette, path, transparency=transparency, optimize=False)
        assert (pixels[clear] == 255).all()
        assert (pixels[~clear] == exact[~clear]).all()


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_images_lie_on_white(photo: Image.Image, tmp_path: Path, mode: str) -> None:
    plain = photo.convert(mode[:-1])
    alpha = np.zeros((16, 24), np.uint8)
    alpha[8:] = 255
    alpha[4:8] = 51  # a fifth
    image = plain.copy()
    image.putalpha(Image.fromarray(alpha))
    pixels = loaded(image, tmp_path / "alpha.png")
    opaque = np.asarray(plain.convert("RGB")).astype(int)
    assert (pixels[:4] == 255).all()
    assert (pixels[8:] == opaque[8:]).all()
    assert np.abs(pixels[4:8] - (0.8 * 255 + 0.2 * opaque[4:8])).max() <= 1


TURN = Image.Transpose
# By EXIF orientation: the stored picture is the upright one turned by the inverse of what it says.
STORED = {
    1: None,
    2: TURN.FLIP_LEFT_RIGHT,
    3: TURN.ROTATE_180,
    4: TURN.FLIP_TOP_BOTTOM,
    5: TURN.TRANSPOSE,
    6: TURN.ROTATE_90,
    7: TURN.TRANSVERSE,
    8: TURN.ROTATE_270,
}


def turned(image: Image.Image, orientation: int) -> tuple[Image.Image, Image.Exif]:
    """How an upright image is stored under an orientation, and the EXIF block that tells it."""
    exif, stored = Image.Exif(), STORED[orientation]
    exif[0x0112] = orientation
    return image if stored is None else image.transpose(stored), exif


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_rotated_images_are_put_upright(
    photo: Image.Image, tmp_path: Path, mode: str, orientation: int
) -> None:
    if mode == "I;16":
        upright = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    else:
        upright = photo.quantize(32) if mode == "P" else photo.convert(mode)
    stored, exif = turned(upright, orientation)
    for kind in ["tiff"] if mode == "CMYK" else ["tiff", "png"]:
        expected = loaded(upright, tmp_path / f"upright.{kind}")
        assert np.array_equal(loaded(stored, tmp_path / f"turned.{kind}", exif=exif), expected)


@pytest.mark.parametrize("orientation", STORED)
def test_rotated_photographs_are_put_upright(
    photo: Image.Image, tmp_path: Path, orientation: int
) -> None:
    stored, exif = turned(photo, orientation)
    pixels = loaded(stored, tmp_path / "turned.jpg", exif=exif, quality=95)
    assert np.abs(pixels - np.asarray(photo)).mean() < 6


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
@pytest.mark.parametrize("kind", ["jpg", "png", "bmp", "gif", "tiff", "webp"])
def test_truncated_files_are_named(tmp_path: Path, kind: str, options: dict) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{kind}"
    Image.fromarray(noise).save(path, **options)
    images.load_image(path)
    content = path.read_bytes()
    for length in (0, 1, 20, len(content) // 2, int(0.98 * len(content))):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=rf"cannot read the image .*cut\.{kind}"):
            images.load_image(path)


@pytest.mark.filterwarnings("ignore:.*multi-threaded")
def test_a_workers_error_reads_like_any_other(tree: Callable[..., Path]) -> None:
    root = tree()
    paths = tasks.load_task("office31", root, "A2W").source.paths
    paths[3].write_text("no image")
    with pytest.raises(UserError) as direct:
        Images(paths, PAPER, {})[3, None]
    assert str(paths[3]) in str(direct.value)
    with pytest.raises(UserError) as caught:
        list(images.loader(Images(paths, PAPER, {}), CPU, 1, sampler=[(3, None)]))
    assert str(caught.value) == str(direct.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_waits_until_the_loader_is_made(number: int) -> None:
    steps = []

    class Stopping:
        def __iter__(self) -> Iterator[list[int]]:
            signal.raise_signal(number)
            steps.append("made")
            return iter([])

    loader = images.loader(Images([], PAPER, {}), CPU, 0, batch_sampler=Stopping())
    handler = signal.signal(number, signal.default_int_handler)  # for SIGTERM as the script does
    try:
        with pytest.raises(KeyboardInterrupt):
            iter(loader)
        assert steps == ["made"]
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, handler)


def test_images_come_with_their_index_and_no_label(tree: Callable[..., Path]) -> None:
    task = tasks.load_task("office31", tree(), "A2W")
    order = [7, 0, 11, 4, 2]
    loader = images.loader(
        Images(task.target.paths, PAPER, {}),
        CPU,
        0,
        sampler=[(i, None) for i in order],
        batch_size=5,
    )
    ((batch, flips, index),) = loader
    assert index.tolist() == order
    assert not flips.any()
    transform = images.eval_transform(PAPER)
    for image, i in zip(images.Normalize(PAPER)(batch), order, strict=True):
        assert torch.equal(image, transform(images.load_image(task.target.paths[i])))


# Transforms


def test_evaluation_takes_any_preprocessing(photo: Image.Image) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)
    steps = [v2.Resize(12), v2.CenterCrop(8), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    expected = v2.Compose([*steps, v2.Normalize(mean, std)])(photo)
    tensor = images.eval_transform(Preprocessing(12, 8, mean, std))(photo)
    torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=0)


def pixels_of(tensor: torch.Tensor) -> np.ndarray:
    """Undo ImageNet's normalisation."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return tensor.permute(1, 2, 0).numpy() * std + mean


@pytest.mark.parametrize("size", [(512, 300), (300, 512), (100, 100), (256, 400)])
def test_evaluation_sees_the_centre(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    scale = 256 / min(size)
    resized = image.resize((int(size[0] * scale), int(size[1] * scale)), Image.Resampling.BILINEAR)
    left, top = (round((length - 224) / 2) for length in resized.size)
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224))) / 255
    tensor = images.eval_transform(PAPER)(image)
    assert tensor.shape == (3, 224, 224)
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(pixels_of(tensor), expected, atol=1e-6)


SEEDS = torch.randint(2**62, (28,), generator=torch.Generator().manual_seed(0)).tolist()


@pytest.fixture(scope="module", params=["random", "consecutive"])
def draws(request: pytest.FixtureRequest) -> np.ndarray:
    """(flip, top, left) of a crop for each of many seeds; the pixels of the image hold their place.

    There are 2 x 9 x 19 ways to see it.
    """
    y, x = np.mgrid[:40, :50]
    image = torch.from_numpy(np.stack([y, x, x * y % 256]).astype(np.uint8))
    crops = Images([Path("places")], Preprocessing(40, 32), {Path("places"): image})
    seeds = torch.randint(2**62, (20_000,), generator=torch.Generator().manual_seed(0))
    seen = []
    for seed in seeds.tolist() if request.param == "random" else range(20_000):
        crop, flip, _ = crops[0, seed]
        top, left, _ = crop[:, 0, 0].tolist()
        assert torch.equal(crop, image[:, top : top + 32, left : left + 32])
        seen.append((flip, top, left))
    return np.array(seen)


def counts(*values: np.ndarray, choices: tuple[int, ...]) -> np.ndarray:
    """How often each combination of values came; one out of range raises."""
    return np.bincount(np.ravel_multi_index(values, choices), minlength=np.prod(choices))


def test_crops_and_flips_are_uniform_and_independent(draws: np.ndarray) -> None:
    # Of all three together: each is uniform, and none tells anything about the others.
    assert chisquare(counts(*draws.T, choices=(2, 9, 19))).pvalue > 1e-3


def test_the_next_image_is_seen_independently_of_the_one_before(draws: np.ndarray) -> None:
    for values, n in zip(draws.T, (2, 9, 19), strict=True):
        assert chisquare(counts(values[::2], values[1::2], choices=(n, n))).pvalue > 1e-3


def test_the_seed_alone_fixes_crop_and_flip(odd_images: list[Path]) -> None:
    crops = Images(odd_images, PAPER, {})
    for seed in SEEDS[:5]:
        torch.manual_seed(seed % 3)
        (first, flip, _), (again, as_well, _) = crops[1, seed], crops[1, seed]
        assert flip == as_well
        assert torch.equal(first, again)


def batch_of(paths: list[Path], cache: dict[Path, torch.Tensor], seeds: Sequence[int]):
    """What a Trainer gives to the network for the images 0, 1, ..., again and again."""
    domain = tasks.Domain("a", paths, [*range(len(paths))])
    task = tasks.Task("a2b", domain, domain, [*map(str, domain.labels)])
    recipe = Recipe("folders", batch_size=len(seeds))
    inputs = Inputs(Run(recipe, task, "source-only", 0), Runtime(CPU, workers=0), cache)
    keys = [(i % len(paths), seed) for i, seed in enumerate(seeds)]
    inputs.loaders = [images.loader(Images(paths, PAPER, cache), CPU, 0, batch_sampler=[keys])]
    (((batch,), labels),) = inputs.epoch(0, 1)
    assert labels.tolist() == [i for i, _ in keys]
    assert batch.is_contiguous(memory_format=torch.channels_last)
    return batch


@pytest.fixture
def odd_images(tmp_path: Path) -> list[Path]:
    """Images of many sizes and modes, the last of which EXIF turns."""
    rng = np.random.default_rng(0)
    sizes = [(300, 280), (280, 431), (100, 90), (256, 256), (640, 257), (33, 64), (400, 300)]
    modes = ["RGB", "L", "P", "RGBA", "CMYK", "I;16", "RGB"]
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = []
    for i, ((width, height), mode) in enumerate(zip(sizes, modes, strict=True)):
        noise = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((width, height))
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        elif mode == "P":
            image = image.quantize(32)
        else:
            image = image.convert(mode)
        paths.append(tmp_path / f"{i}.{'jpg' if mode in ('RGB', 'CMYK') else 'png'}")
        image.save(paths[-1], **({"exif": exif} if i == len(sizes) - 1 else {}))
    return paths


def test_a_cache_holds_every_image_resized(odd_images: list[Path]) -> None:
    cache = images.fill("ram", odd_images * 2, PAPER, CPU)
    assert [*cache] == odd_images
    assert cache[odd_images[-1]].shape == (3, 341, 256)  # turned by EXIF
    for image in cache.values():
        assert image.dtype == torch.uint8
        assert min(image.shape[1:]) == 256
    small = images.fill("ram", odd_images, Preprocessing(resize=36, crop=32), CPU)
    assert {min(image.shape[1:]) for image in small.values()} == {36}


def test_cached_batches_are_the_read_ones_bit_for_bit(odd_images: list[Path]) -> None:
    cache = images.fill("ram", odd_images, PAPER, CPU)
    for path in odd_images:  # the cache alone is read from
        path.rename(path.with_suffix(".away"))
    cached = batch_of(odd_images, cache, SEEDS[:28])
    for path in odd_images:
        path.with_suffix(".away").rename(path)
    assert torch.equal(cached, batch_of(odd_images, {}, SEEDS[:28]))
    # One image twice in a batch, by other seeds, is seen twice in other ways.
    for i in range(7):
        assert len({image.numpy().tobytes() for image in cached[i::7]}) == 4


def test_batches_are_as_torchvisions_transforms_make_them(odd_images: list[Path]) -> None:
    transform = v2.Compose(
        [
            v2.Resize(256),
            v2.RandomCrop(224),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(PAPER.mean, PAPER.std),
        ]
    )
    for i, image in enumerate(batch_of(odd_images, {}, SEEDS[:28])):
        torch.manual_seed(SEEDS[i])
        expected = transform(images.load_image(odd_images[i % 7]))
        torch.testing.assert_close(image, expected, atol=1e-6, rtol=0)


def test_cached_images_need_no_processes_that_read(odd_images: list[Path]) -> None:
    cache = images.fill("ram", odd_images, PAPER, CPU)
    for cached, workers in (({}, 2), (cache, 0)):
        loader = images.loader(Images(odd_images, PAPER, cached), CPU, 2)
        assert loader.num_workers == workers


def test_the_cache_says_what_it_takes(
    odd_images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cache = images.fill("device", odd_images * 2, PAPER, CPU)
    size = tqdm.format_sizeof(sum(image.nbytes for image in cache.values()), "B")
    assert capsys.readouterr().out == f"images in memory: {size}\n"
    assert images.fill("off", odd_images, PAPER, CPU) == images.fill("ram", [], PAPER, CPU) == {}
    assert capsys.readouterr().out == ""


def test_images_that_do_not_fit_into_the_memory_are_not_cached(
    odd_images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = images.fill("ram", odd_images, PAPER, CPU)
    size = sum(image.nbytes for image in cache.values())
    text, free = (tqdm.format_sizeof(n, "B") for n in (size, 2 * size - 2))
    monkeypatch.setattr(memory, "free_memory", lambda place: 2 * size)
    assert [*images.fill("ram", odd_images, PAPER, CPU)] == odd_images
    monkeypatch.setattr(memory, "free_memory", lambda place: 2 * size - 2)
    with pytest.warns(UserWarning, match=f"would take {text}, more than half of the {free} that"):
        assert images.fill("ram", odd_images, PAPER, CPU) == {}
    monkeypatch.setattr(memory, "free_memory", lambda place: 3 * size)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # as torchrun sets it: a copy for each process
    with pytest.warns(UserWarning, match="in 2 processes, more than half"):
        assert images.fill("ram", odd_images, PAPER, CPU) == {}


@pytest.mark.parametrize("place", ["ram", "device", "off"])
def test_every_unreadable_image_is_named(odd_images: list[Path], place: str) -> None:
    cut, empty = odd_images[1], odd_images[0].with_name("empty.jpg")
    os.truncate(cut, cut.stat().st_size // 2)
    empty.touch()
    with pytest.raises(UserError) as caught:
        images.fill(place, [*odd_images, empty], PAPER, CPU)
    lines = str(caught.value).splitlines()
    for line, path in zip(lines, (cut, empty), strict=True):
        assert line.startswith(f"cannot read the image {path}: ")


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="only Linux tells")
def test_free_memory_is_a_part_of_the_machines() -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 2**24 < memory.free_memory(CPU) <= machine
