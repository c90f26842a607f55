import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from office import cache, data
from office.training import Trainer
from PIL import Image
from scipy.stats import chisquare
from torchvision.transforms import v2
from tqdm import tqdm

pytestmark = pytest.mark.filterwarnings("ignore:.*published")
CPU = torch.device("cpu")
REAL = Path(__file__).parents[2].parent / "shared/data/office_caltech10"


def colours(domain: data.Domain) -> dict[int, np.ndarray]:
    """Mean colour of the images of each label: the trees give each category its own."""
    found: dict[int, list] = {}
    for path, label in zip(domain.paths, domain.labels or [], strict=True):
        found.setdefault(label, []).append(np.asarray(Image.open(path)).mean((0, 1)))
    return {label: np.mean(values, 0) for label, values in found.items()}


# Tasks


def test_tasks_follow_the_order_of_the_papers_tables() -> None:
    assert data.task_names("office31") == ["A2W", "D2W", "W2D", "A2D", "D2A", "W2A"]
    assert data.task_names("imageclef-da") == ["I2P", "P2I", "I2C", "C2I", "C2P", "P2C"]
    assert data.task_names("office-home") == [
        "Ar2Cl",
        "Ar2Pr",
        "Ar2Rw",
        "Cl2Ar",
        "Cl2Pr",
        "Cl2Rw",
        "Pr2Ar",
        "Pr2Cl",
        "Pr2Rw",
        "Rw2Ar",
        "Rw2Cl",
        "Rw2Pr",
    ]
    assert data.task_names("office-caltech10") == [
        "A2C",
        "A2D",
        "A2W",
        "C2A",
        "C2D",
        "C2W",
        "D2A",
        "D2C",
        "D2W",
        "W2A",
        "W2C",
        "W2D",
    ]


def test_published_counts_add_up_to_the_papers() -> None:
    total = {
        name: sum(part.images for part in benchmark.domains.values())
        for name, benchmark in data.DATASETS.items()
    }
    # 4,110 is section 4.1's; 15,588 its "15,500"; 3 x 12 x 50; Gong et al.'s 2,533.
    assert total == {
        "office31": 4110,
        "imageclef-da": 1800,
        "office-home": 15588,
        "office-caltech10": 2533,
    }


@pytest.mark.parametrize("dataset", list(data.DATASETS))
@pytest.mark.parametrize("layout", ["folders", "archive", "image_list", "list"])
def test_every_task_loads_in_every_layout(
    tree: Callable[..., Path], dataset: str, layout: str
) -> None:
    parts = data.DATASETS[dataset].domains
    root = tree(layout, [part.name for part in parts.values()], images=2)
    assert data.available_tasks(dataset, root) == data.task_names(dataset)
    for name in data.task_names(dataset):
        task = data.load_task(dataset, root, name)
        source, target = name.split("2")
        assert task.name == name
        assert (task.source.name, task.target.name) == (parts[source].name, parts[target].name)
        numbers = layout == "list"
        assert task.categories == (["0", "1", "2"] if numbers else ["bike", "mouse", "mug"])
        for domain in (task.source, task.target):
            assert domain.labels == [0, 0, 1, 1, 2, 2]
            assert all(domain.name in path.parts for path in domain.paths)
            assert len(set(domain.paths)) == 6
        found = colours(task.source), colours(task.target)
        for label in range(3):
            assert np.abs(found[0][label] - found[1][label]).max() < 8


@pytest.mark.parametrize("folder", ["Real World", "RealWorld", "Real_World", "real-world"])
def test_spellings_of_a_folder_name(tree: Callable[..., Path], folder: str) -> None:
    task = data.load_task("office-home", tree("folders", ["ART", folder]), "Ar2Rw")
    assert (len(task.source.paths), len(task.target.paths)) == (12, 12)
    assert folder in task.target.paths[0].parts
    task = data.load_task("office-home", tree("image_list", ["Art", folder], name="lists"), "Ar2Rw")
    assert len(task.target.paths) == 12


def test_archives_that_unpack_into_a_folder_of_their_own(tree: Callable[..., Path]) -> None:
    for layout in ("archive", "image_list"):
        root = tree(layout, name=f"{layout}/unpacked").parent
        assert len(data.load_task("office31", root, "A2W").source.paths) == 12


def test_other_files_are_passed_over(tree: Callable[..., Path]) -> None:
    root = tree()
    for stray in ("Thumbs.db", ".DS_Store", "._0.jpg", "notes.txt"):
        (root / "amazon/bike" / stray).write_text("stray")
    (root / "amazon/.cache").mkdir()
    shutil.move(root / "amazon/mug/0.jpg", root / "amazon/mug/0.JPEG")
    assert len(data.load_task("office31", root, "A2W").source.paths) == 12


def test_links_are_followed(tree: Callable[..., Path], tmp_path: Path) -> None:
    root = tree(name="real")
    linked = tmp_path / "linked"
    (linked / "webcam").mkdir(parents=True)
    (linked / "amazon").symlink_to(root / "amazon")
    for category in ("bike", "mouse"):
        (linked / "webcam" / category).symlink_to(root / "webcam" / category)
    (linked / "webcam/mug").mkdir()
    (linked / "webcam/mug/0.jpg").symlink_to(root / "webcam/mug/0.jpg")
    task = data.load_task("office31", linked, "A2W")
    assert (len(task.source.paths), len(task.target.paths)) == (12, 9)
    (root / "webcam/mug/0.jpg").unlink()
    task = data.load_task("office31", linked, "A2W")
    with pytest.raises(data.DataError, match=r"webcam/mug/0\.jpg"):
        data.load_image(task.target.paths[-1])


def test_only_the_tasks_domains_are_needed(tree: Callable[..., Path]) -> None:
    root = tree("folders", ["amazon", "webcam"])
    assert data.available_tasks("office-caltech10", root) == ["A2W", "W2A"]
    with pytest.raises(data.DataError, match="caltech10 not found"):
        data.load_task("office-caltech10", root, "A2C")


def test_counts_other_than_the_published_ones_are_named(tree: Callable[..., Path]) -> None:
    root = tree("folders", ["Art", "Clipart"], images=1)
    with pytest.warns(UserWarning, match="published") as caught:
        data.load_task("office-home", root, "Ar2Cl")
    assert [str(warning.message) for warning in caught] == [
        "office-home Art: 3 images found, 2,427 published",
        "office-home Clipart: 3 images found, 4,365 published",
        "office-home: 3 categories found, 65 published",
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.skipif(not REAL.is_dir(), reason="needs the photographs of ../shared/data")
def test_real_photographs() -> None:
    tasks = [
        data.load_task("office-caltech10", REAL, name)
        for name in data.available_tasks("office-caltech10", REAL)
    ]
    assert [task.name for task in tasks] == ["A2D", "A2W", "D2A", "D2W", "W2A", "W2D"]
    assert len(tasks[0].categories) == 10
    images = data.Images(tasks[0].source.paths, {})
    assert images[957, None][0].shape == (3, 224, 224)


# Lists


def test_categories_are_matched_by_the_lists_numbers(tree: Callable[..., Path]) -> None:
    root = tree("list", ["i", "p"], images=2)
    for domain in "ip":
        path = root / f"list/{domain}List.txt"
        lines = path.read_text().splitlines()
        # Numbers may start at 1, and lines come in any order.
        shifted = [f"{line.split()[0]} {int(line.split()[1]) + 1}" for line in lines]
        path.write_text("\n".join(shifted[::-1] if domain == "p" else shifted) + "\n\n")
    task = data.load_task("imageclef-da", root, "I2P")
    assert task.categories == ["1", "2", "3"]
    assert task.target.labels == [0, 0, 1, 1, 2, 2]
    found = colours(task.source), colours(task.target)
    for label in range(3):
        assert np.abs(found[0][label] - found[1][label]).max() < 8


def test_numbers_win_over_folder_names(tree: Callable[..., Path]) -> None:
    root = tree("image_list")
    (root / "webcam/images/mug").rename(root / "webcam/images/cup")
    path = root / "image_list/webcam.txt"
    path.write_text(path.read_text().replace("/mug/", "/cup/"))
    with pytest.warns(UserWarning, match="category 2 is mug in amazon and cup in webcam"):
        task = data.load_task("office31", root, "A2W")
    assert task.categories == ["bike", "mouse", "mug"]


def test_lists_made_on_another_machine(tree: Callable[..., Path]) -> None:
    root = tree("image_list")
    (root / "amazon/images/bike/0.jpg").rename(root / "amazon/images/bike/a b.jpg")
    path = root / "image_list/amazon.txt"
    text = path.read_text().replace("bike/0.jpg", "bike/a b.jpg")
    path.write_text(text.replace("amazon/", "/home/someone/office/amazon/"))
    task = data.load_task("office31", root, "A2W")
    assert root / "amazon/images/bike/a b.jpg" in task.source.paths
    assert len(task.source.paths) == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("amazon/images/bike/0.jpg 0\namazon/images/bike/9.jpg 0\n", "amazon.txt, line 2: no such"),
        ("amazon/images/bike/0.jpg\n", "amazon.txt, line 1: expected 'path label'"),
        ("amazon/images/bike/0.jpg bike\n", "amazon.txt, line 1: expected 'path label'"),
        ("\n", "list is empty"),
    ],
)
def test_bad_lists(tree: Callable[..., Path], text: str, message: str) -> None:
    root = tree("image_list")
    (root / "image_list/amazon.txt").write_text(text)
    with pytest.raises(data.DataError, match=message):
        data.load_task("office31", root, "A2W")


# Bad input


@pytest.mark.parametrize("root", [None, Path("no/such/folder")])
def test_a_missing_root_is_explained(root: Path | None) -> None:
    with pytest.raises(data.DataError) as caught:
        data.load_task("office-home", root, "Ar2Rw")
    message = str(caught.value)
    assert "Art and Real World not found" in message
    assert ("no/such/folder is not a folder" if root else "--root is not given") in message
    for line in ("Art/<category>/*.jpg", "image_list/Art.txt", "hemanthdv.org", "train_digits.py"):
        assert line in message


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("A2A", "no task A2A: its source and target are the same domain; choose A2W, D2W"),
        ("A2C", "no task A2C: the domains are A, W, D; choose A2W"),
        ("amazon", "no task amazon"),
        ("", "no task"),
    ],
)
def test_unknown_tasks(tree: Callable[..., Path], task: str, message: str) -> None:
    with pytest.raises(data.DataError, match=message):
        data.load_task("office31", tree(), task)


def test_bad_trees(tree: Callable[..., Path]) -> None:
    def message(root: Path) -> str:
        with pytest.raises(data.DataError) as caught:
            data.load_task("office31", root, "A2W")
        return str(caught.value)

    root = tree(name="category")
    for path in (root / "webcam/mug").iterdir():
        path.unlink()
    assert message(root) == f"category mug of domain webcam has no images: {root}/webcam/mug"

    root = tree(name="empty")
    shutil.rmtree(root / "amazon")
    (root / "amazon").mkdir()
    assert message(root) == f"domain amazon is empty: {root}/amazon has no category folders"

    root = tree(name="flat")
    shutil.rmtree(root / "amazon")
    shutil.copytree(root / "webcam/mug", root / "amazon")
    assert (
        message(root)
        == f"domain amazon is empty: {root}/amazon has images outside category folders"
    )

    root = tree(name="differ")
    (root / "amazon/mug").rename(root / "amazon/cup")
    shutil.rmtree(root / "webcam/bike")
    assert message(root) == (
        "amazon and webcam differ in categories; missing in amazon: mug; "
        "missing in webcam: bike, cup"
    )


# Folders


def test_folders(tree: Callable[..., Path]) -> None:
    root = tree("folders", ["photos", "sketches"])
    task = data.load_folders(root / "photos", root / "sketches")
    assert task.name == "photos2sketches"
    assert task.categories == ["bike", "mouse", "mug"]
    assert task.source.labels == task.target.labels == [0] * 4 + [1] * 4 + [2] * 4


def test_a_target_folder_without_categories_has_no_labels(tree: Callable[..., Path]) -> None:
    root = tree("folders", ["photos", "sketches"])
    task = data.load_folders(root / "photos", root / "sketches/mug")
    assert task.target.labels is None
    assert [path.name for path in task.target.paths] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert task.source.labels == [0] * 4 + [1] * 4 + [2] * 4
    assert data.check([task])


def test_folders_of_one_name_keep_their_names_apart(tree: Callable[..., Path]) -> None:
    root = tree("archive")
    task = data.load_folders(root / "amazon/images", root / "webcam/images")
    assert task.name == "amazon-images2webcam-images"


def test_bad_folders(tree: Callable[..., Path], tmp_path: Path) -> None:
    root = tree()
    with pytest.raises(data.DataError, match=r"no such folder: .*nowhere"):
        data.load_folders(root / "amazon", root / "nowhere")
    with pytest.raises(data.DataError, match="same folder"):
        data.load_folders(root / "amazon", root / "webcam/../amazon")
    (tmp_path / "empty").mkdir()
    with pytest.raises(data.DataError, match="domain empty is empty"):
        data.load_folders(root / "amazon", tmp_path / "empty")
    with pytest.raises(data.DataError, match="outside category folders"):
        data.load_folders(root / "amazon/mug", root / "webcam")


# Images


@pytest.fixture
def photo() -> Image.Image:
    """An RGB image, 24 x 16, no two corners alike."""
    y, x = np.mgrid[:16, :24]
    return Image.fromarray(np.stack([x * 10, y * 15, 255 - x * 5 - y * 5], -1).astype(np.uint8))


def loaded(image: Image.Image, path: Path, **options: object) -> np.ndarray:
    image.save(path, **options)
    result = data.load_image(path)
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
    with pytest.raises(data.DataError, match=r"f\.tiff: pixels of mode F"):
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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_images_are_put_upright(
    photo: Image.Image, tmp_path: Path, orientation: int
) -> None:
    # The stored picture is the upright one turned by the inverse of what EXIF prescribes.
    transpose = Image.Transpose
    stored = {
        1: None,
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_90,
        7: transpose.TRANSVERSE,
        8: transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = photo if stored is None else photo.transpose(stored)
    pixels = loaded(image, tmp_path / "turned.png", exif=exif)
    assert (pixels == np.asarray(photo)).all()
    pixels = loaded(image, tmp_path / "turned.jpg", exif=exif, quality=95)
    assert np.abs(pixels - np.asarray(photo)).mean() < 6


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
@pytest.mark.parametrize("kind", ["jpg", "png", "bmp", "gif", "tiff", "webp"])
def test_truncated_files_are_named(tmp_path: Path, kind: str, options: dict) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{kind}"
    Image.fromarray(noise).save(path, **options)
    data.load_image(path)
    content = path.read_bytes()
    for length in (0, 1, 20, len(content) // 2, int(0.98 * len(content))):
        path.write_bytes(content[:length])
        with pytest.raises(data.DataError, match=rf"cannot read the image .*cut\.{kind}"):
            data.load_image(path)


@pytest.mark.filterwarnings("ignore:.*multi-threaded")
def test_a_workers_error_reads_like_any_other(tree: Callable[..., Path]) -> None:
    root = tree()
    paths = data.load_task("office31", root, "A2W").source.paths
    paths[3].write_text("no image")
    with pytest.raises(data.DataError) as direct:
        data.Images(paths, {})[3, None]
    assert str(paths[3]) in str(direct.value)
    with pytest.raises(data.DataError) as caught:
        list(data.loader(data.Images(paths, {}), CPU, 1, sampler=[(3, None)]))
    assert str(caught.value) == str(direct.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_waits_until_the_loader_is_made(number: int) -> None:
    steps = []

    class Stopping:
        def __iter__(self) -> Iterator[list[int]]:
            signal.raise_signal(number)
            steps.append("made")
            return iter([])

    loader = data.loader(data.Images([], {}), CPU, 0, batch_sampler=Stopping())
    handler = signal.signal(number, signal.default_int_handler)  # for SIGTERM as the script does
    try:
        with pytest.raises(KeyboardInterrupt):
            iter(loader)
        assert steps == ["made"]
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, handler)


def test_images_come_with_their_index_and_no_label(tree: Callable[..., Path]) -> None:
    task = data.load_task("office31", tree(), "A2W")
    images = data.Images(task.target.paths, {})
    order = [7, 0, 11, 4, 2]
    loader = data.loader(images, CPU, 0, sampler=[(i, None) for i in order], batch_size=5)
    ((batch, flips, index),) = loader
    assert index.tolist() == order
    assert not flips.any()
    for image, i in zip(data.Normalize()(batch), order, strict=True):
        assert torch.equal(image, data.eval_transform()(data.load_image(task.target.paths[i])))


# Transforms


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
    tensor = data.eval_transform()(image)
    assert tensor.shape == (3, 224, 224)
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(pixels_of(tensor), expected, atol=1e-6)


def test_training_sees_random_crops_and_flips(tmp_path: Path) -> None:
    # Every pixel holds its place.
    y, x = np.mgrid[:256, :300]
    path = tmp_path / "places.png"
    Image.fromarray(np.stack([x % 256, y, x // 256], -1).astype(np.uint8)).save(path)
    images = data.Images([path], {path: data.resized(path)})
    seen = []
    for seed in torch.randint(2**62, (2000,), generator=torch.Generator().manual_seed(0)).tolist():
        crop, flip, _ = images[0, seed]
        columns, rows = crop[0].int() + 256 * crop[2].int(), crop[1]
        left, top = int(columns[0, 0]), int(rows[0, 0])
        assert crop.shape == (3, 224, 224)
        assert (int(columns[-1, -1]), int(rows[-1, -1])) == (left + 223, top + 223)
        seen.append((flip, left, top))
    flips, lefts, tops = np.array(seen).T
    for values, choices in ((flips, 2), (lefts, 77), (tops, 33)):
        counts = np.bincount(values, minlength=choices)
        assert len(counts) == choices
        assert chisquare(counts).pvalue > 1e-3
    for first, second in ((flips, lefts), (flips, tops), (lefts, tops)):
        assert abs(np.corrcoef(first, second)[0, 1]) < 4 / 2000**0.5


def batch_of(images: data.Images, seeds: Sequence[int]) -> torch.Tensor:
    """What a Trainer gives to the network for the images 0, 1, ..., again and again."""
    keys = [(i % len(images.paths), seed) for i, seed in enumerate(seeds)]
    trainer = SimpleNamespace(
        device=CPU,
        layout=torch.channels_last,
        batches=[SimpleNamespace()],
        loaders=[data.loader(images, CPU, 0, batch_sampler=[keys])],
        labels=torch.arange(len(images.paths)),
        normalize=data.Normalize(),
    )
    (((batch,), labels),) = Trainer.inputs(trainer, 0, 1)
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


def test_cached_batches_are_the_read_ones_bit_for_bit(odd_images: list[Path]) -> None:
    task = data.Task("a2b", *(data.Domain(n, odd_images, None) for n in "ab"), ["all"])
    images = cache.fill("ram", [task], CPU)
    assert [*images] == odd_images
    assert images[odd_images[-1]].shape == (3, 341, 256)  # turned by EXIF
    for image in images.values():
        assert image.dtype == torch.uint8
        assert min(image.shape[1:]) == 256
    seeds = torch.randint(2**62, (28,), generator=torch.Generator().manual_seed(1)).tolist()
    for path in odd_images:  # the cache alone is read from
        path.rename(path.with_suffix(".away"))
    cached = batch_of(data.Images(odd_images, images), seeds)
    for path in odd_images:
        path.with_suffix(".away").rename(path)
    assert torch.equal(cached, batch_of(data.Images(odd_images, {}), seeds))
    # One image twice in a batch, by other seeds, is seen twice in other ways.
    for i in range(7):
        assert len({image.numpy().tobytes() for image in cached[i::7]}) == 4
    # And all of it as the public transforms of torchvision make it of the same draws.
    for image, seed, path in zip(cached, seeds, odd_images * 4, strict=True):
        whole = v2.Resize(256)(data.load_image(path))
        top = seed // 2 % (whole.height - 223)
        left = seed // 2 // (whole.height - 223) % (whole.width - 223)
        crop = whole.crop((left, top, left + 224, top + 224))
        steps = [v2.RandomHorizontalFlip(seed % 2), v2.ToImage(), v2.ToDtype(torch.float32, True)]
        expected = v2.Compose([*steps, v2.Normalize(data.MEAN, data.STD)])(crop)
        torch.testing.assert_close(image, expected, atol=1e-6, rtol=0)


def test_the_cache_says_what_it_takes_and_falls_back(
    odd_images: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = data.Task("a2b", *(data.Domain(n, odd_images, None) for n in "ab"), ["all"])
    images = cache.fill("device", [task, task], CPU)
    size = sum(image.nbytes for image in images.values())
    text = tqdm.format_sizeof(size, "B")
    assert capsys.readouterr().out == f"images in memory: {text}\n"
    assert cache.fill("off", [task], CPU) == cache.fill("ram", [], CPU) == {}
    assert capsys.readouterr().out == ""

    monkeypatch.setattr(cache, "free_memory", lambda place: 2 * size)
    assert [*cache.fill("ram", [task], CPU)] == odd_images
    monkeypatch.setattr(cache, "free_memory", lambda place: 2 * size - 2)
    free = tqdm.format_sizeof(2 * size - 2, "B")
    with pytest.warns(UserWarning, match=f"would take {text}, more than half of the {free} that"):
        assert cache.fill("ram", [task], CPU) == {}
    monkeypatch.setattr(cache, "free_memory", lambda place: 3 * size)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # as torchrun sets it: a copy for each process
    with pytest.warns(UserWarning, match="in 2 processes, more than half"):
        assert cache.fill("ram", [task], CPU) == {}

    cut, empty = odd_images[1], tmp_path / "empty.jpg"
    os.truncate(cut, cut.stat().st_size // 2)
    empty.touch()
    task = data.Task("a2b", task.source, data.Domain("b", [empty], None), ["all"])
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    for choice in ("ram", "device", "off"):
        with pytest.raises(data.DataError) as caught:
            cache.fill(choice, [task], CPU)
        lines = str(caught.value).splitlines()
        for line, path in zip(lines, (cut, empty), strict=True):
            assert line.startswith(f"cannot read the image {path}: ")


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="only Linux tells")
def test_free_memory_is_a_part_of_the_machines() -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 2**24 < cache.free_memory(CPU) <= machine


# --check


def test_check_prints_every_category_and_names_the_unreadable(
    tree: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(images=2)
    (root / "amazon/mug/1.jpg").unlink()
    names = data.available_tasks("office31", root)
    tasks = [data.load_task("office31", root, name) for name in names]
    assert names == ["A2W", "W2A"]
    assert data.check(tasks)
    assert capsys.readouterr().out.splitlines() == [
        "category  amazon  webcam",
        "bike           2       2",
        "mouse          2       2",
        "mug            1       2",
        "all            5       6",
        "11 of 11 images can be read",
    ]
    broken = root / "webcam/mouse/1.jpg"
    os.truncate(broken, broken.stat().st_size // 2)
    buffer = io.BytesIO()
    Image.open(root / "amazon/bike/0.jpg").convert("CMYK").save(buffer, "JPEG")
    (root / "amazon/bike/0.jpg").write_bytes(buffer.getvalue())
    assert not data.check(tasks)
    out = capsys.readouterr().out.splitlines()
    assert out[-2] == "10 of 11 images can be read; converted to RGB: 1 CMYK"
    assert out[-1].startswith(f"cannot read the image {broken}: ")
