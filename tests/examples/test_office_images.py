"""Reading images of any kind as RGB, resizing them, and decoding all of them once."""

import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import driver
import numpy as np
import pytest
import torch
from made_results import read_predictions
from office import files
from office.console import UserError
from office.data import images
from office.data.hashes import check_images
from office.data.images import Preprocessing
from office.data.tasks import load_task
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin
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


def loaded(path: Path) -> np.ndarray:
    image = images.load_image(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def saved_and_loaded(image: Image.Image, path: Path, **options: object) -> np.ndarray:
    image.save(path, **options)
    return loaded(path)


def test_grey_images(photo: Image.Image, tmp_path: Path) -> None:
    grey = np.asarray(photo.convert("L")).astype(int)
    assert (saved_and_loaded(photo.convert("L"), tmp_path / "l.png") == grey[..., None]).all()
    bits = saved_and_loaded(photo.convert("1"), tmp_path / "1.png")
    assert (bits == np.asarray(photo.convert("1"))[..., None] * 255).all()
    for kind in ("png", "tiff"):
        deep = Image.fromarray((grey * 257).astype(np.uint16))
        assert (saved_and_loaded(deep, tmp_path / f"16.{kind}") == grey[..., None]).all()
    wide = Image.fromarray((grey * 257).astype(np.int32))
    assert (saved_and_loaded(wide, tmp_path / "32.tiff") == grey[..., None]).all()
    with pytest.raises(
        UserError, match=r"f\.tiff: its pixels are floats: save it with 8 or 16 bits"
    ):
        saved_and_loaded(photo.convert("F"), tmp_path / "f.tiff")


def test_cmyk_images(tmp_path: Path) -> None:
    # Ink: cyan absorbs red, black absorbs all.
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:8, :, 0] = 255
    inks[8:, :, 3] = 255
    pixels = saved_and_loaded(Image.fromarray(inks, "CMYK"), tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(pixels[2, 2] - [0, 255, 255]).max() < 12
    assert np.abs(pixels[12, 2]).max() < 12


def test_palette_images(photo: Image.Image, tmp_path: Path) -> None:
    palette = photo.quantize(16)
    exact = np.asarray(palette.convert("RGB"))
    assert (saved_and_loaded(palette, tmp_path / "p.png") == exact).all()
    assert (saved_and_loaded(palette, tmp_path / "p.gif") == exact).all()
    clear = np.asarray(palette) == 3
    for kind, transparency in (
        ("gif", 3),
        ("png", 3),
        ("png", bytes([255, 255, 255, 0, *[255] * 12])),
    ):
        path = tmp_path / f"clear.{kind}"
        pixels = saved_and_loaded(palette, path, transparency=transparency, optimize=False)
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
    pixels = saved_and_loaded(image, tmp_path / "alpha.png")
    opaque = np.asarray(plain.convert("RGB")).astype(int)
    assert (pixels[:4] == 255).all()
    assert (pixels[8:] == opaque[8:]).all()
    assert np.abs(pixels[4:8] - (0.8 * 255 + 0.2 * opaque[4:8])).max() <= 1


@pytest.mark.parametrize("kind", ["progressive.jpg", "jpg", "png", "bmp", "gif", "tiff", "webp"])
def test_truncated_files_are_named(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"cut.{kind}"
    Image.fromarray(noise).save(path, progressive="progressive" in kind)
    images.load_image(path)
    content = path.read_bytes()
    for length in (0, 1, 20, len(content) // 2, int(0.98 * len(content))):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=rf"cannot read the image .*cut\.{kind}"):
            images.load_image(path)


@pytest.mark.parametrize("size", [(3, 301), (301, 3)])
def test_an_image_far_longer_than_wide_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=f"{size[0]} x {size[1]} pixels, more than 100 times as"):
        images.load_image(tmp_path / "a.png")
    Image.new("RGB", (300, 3)).save(tmp_path / "b.png")
    assert images.load_image(tmp_path / "b.png").size == (300, 3)


# Rotation, from EXIF


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


@pytest.mark.parametrize("orientation", STORED)
def test_rotated_images_are_put_upright(
    photo: Image.Image, tmp_path: Path, orientation: int
) -> None:
    exif, turn = Image.Exif(), STORED[orientation]
    exif[0x0112] = orientation
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    colours = [photo, photo.convert("L"), photo.convert("RGBA"), photo.quantize(32), deep]
    cases = [(image, kind) for image in colours for kind in ("tiff", "png")]
    for upright, kind in [*cases, (photo.convert("CMYK"), "tiff")]:
        stored = upright if turn is None else upright.transpose(turn)
        expected = saved_and_loaded(upright, tmp_path / f"upright.{kind}")
        pixels = saved_and_loaded(stored, tmp_path / f"turned.{kind}", exif=exif)
        assert np.array_equal(pixels, expected), (upright.mode, kind)
    stored = photo if turn is None else photo.transpose(turn)
    pixels = saved_and_loaded(stored, tmp_path / "turned.jpg", exif=exif, quality=95)
    assert np.abs(pixels - np.asarray(photo)).mean() < 6


@pytest.mark.parametrize("orientation", STORED)
def test_a_tiffs_own_rotation_is_applied_once(tmp_path: Path, orientation: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112] = orientation
    for compression in (None, "tiff_lzw"):
        path = tmp_path / f"{compression}.tif"
        Image.fromarray(noise).save(path, tiffinfo=tags, compression=compression)
        with Image.open(path) as image:
            assert (loaded(path) == np.asarray(ImageOps.exif_transpose(image))).all()


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
@pytest.mark.filterwarnings("ignore:.*orrupt EXIF")
def test_a_broken_exif_block_leaves_the_image_unrotated(tmp_path: Path, kind: str) -> None:
    pixels = np.full((6, 9, 3), 90, np.uint8)
    for block in (b"", b"x", b"no TIFF", b"II*\0\x08\0\0\0\xff\xff", b"II*\0\xff\xff\xff\x7f"):
        exif = b"Exif\0\0" + block if kind == "jpg" else block
        Image.fromarray(pixels).save(tmp_path / f"a.{kind}", exif=exif)
        assert (loaded(tmp_path / f"a.{kind}") == pixels).all()


# Depth


def grey(bits: int) -> np.ndarray:
    """200 of 255 nearly everywhere, and the largest value of some bits."""
    values = np.full((16, 16), round(200 / 255 * (2**bits - 1)))
    values[0, 0] = 2**bits - 1
    return values


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("a.tif", "<u2"), ("b.tif", ">u2"), ("c.tif", "<i4"), ("d.png", "<u2"), ("e.jp2", "<u2")],
)
def test_deep_grey_is_as_bright_as_8_bits(tmp_path: Path, name: str, dtype: str) -> None:
    for bits in (8, 10, 12, 14, 16):
        Image.fromarray(grey(bits).astype(dtype)).save(tmp_path / name)
        assert abs(loaded(tmp_path / name)[1:] - 200).max() <= 1
        assert (loaded(tmp_path / name)[0, 0] == 255).all()


def test_deep_grey_is_divided_by_the_fewest_bits_that_hold_it(tmp_path: Path) -> None:
    for most in (0, 1, 255, 256, 1023, 1024, 4095, 4096, 16383, 16384, 65535):
        values = np.array([[most, most // 2]] * 4, np.int32)
        Image.fromarray(values).save(tmp_path / "a.tif")
        bits = min(bits for bits in (8, 10, 12, 14, 16) if most <= 2**bits - 1)
        expected = np.round(values * 255 / (2**bits - 1))
        assert (loaded(tmp_path / "a.tif") == expected[..., None]).all()


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        ([-1, 5], "i4", "its values, -1 to 5, do not fit into 16 bits"),
        ([0, 65536], "i4", "its values, 0 to 65536, do not fit"),
        ([0, 1], "f4", "its pixels are floats: save it with 8 or 16 bits"),
    ],
)
def test_grey_of_no_known_range_is_refused(tmp_path, values, dtype, message) -> None:
    Image.fromarray(np.array([values] * 2, dtype)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=message):
        images.load_image(tmp_path / "a.tif")


def write_deep_colour(path: Path, pixels: np.ndarray) -> None:
    """A TIFF of 16 bits per colour, which Pillow does not write."""
    data, size = pixels.astype("<u2").tobytes(), pixels.shape[0]
    short, long, after = 3, 4, 8 + 2 + 12 * 9 + 4
    entries = [(256, short, 1, size), (257, short, 1, size), (258, short, 3, after)]
    entries += [(259, short, 1, 1), (262, short, 1, 2), (273, long, 1, after + 6)]
    entries += [(277, short, 1, 3), (278, short, 1, size), (279, long, 1, len(data))]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    path.write_bytes(head + struct.pack("<HHH", 16, 16, 16) + data)


def test_deep_colour_whose_range_nothing_tells_is_refused(tmp_path: Path) -> None:
    write_deep_colour(tmp_path / "16.tif", np.full((8, 8, 3), 200 * 257))
    assert (loaded(tmp_path / "16.tif") == 200).all()
    write_deep_colour(tmp_path / "12.tif", np.full((8, 8, 3), 3200))
    with pytest.raises(UserError, match=r"12\.tif: 16 bits per colour, the high ones unused"):
        images.load_image(tmp_path / "12.tif")


def write_deep_png(path: Path, pixels: np.ndarray, colour_type: int) -> None:
    """A PNG of 16 bits per colour, which Pillow does not write."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with open(path, "ab") as file:
        for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            checksum = struct.pack(">I", zlib.crc32(kind + data))
            file.write(struct.pack(">I", len(data)) + kind + data + checksum)


@pytest.mark.parametrize(("colour_type", "bands"), [(2, 3), (4, 1), (6, 3)])
def test_a_png_of_deep_colour_or_with_transparency_too(
    tmp_path: Path, colour_type: int, bands: int
) -> None:
    opaque = [65535] * (colour_type > 2)
    for name, value in (("16.png", 200 * 257), ("12.png", 3200)):
        pixels = np.array([[[value] * bands + opaque] * 8] * 8)
        write_deep_png(tmp_path / name, pixels, colour_type)
    assert (loaded(tmp_path / "16.png") == 200).all()
    with pytest.raises(UserError, match=r"12\.png: 16 bits per colour, the high ones unused"):
        images.load_image(tmp_path / "12.png")


def write_bands(path: Path, bands: int, *extra: int) -> np.ndarray:
    """An 8-bit TIFF of several bands, with the tag ExtraSamples if it is given."""
    pixels = np.full((8, 8, bands), 10, np.uint8) * np.arange(1, bands + 1, dtype=np.uint8)
    short, long, count = 3, 4, 10 if extra else 9
    after = 8 + 2 + 12 * count + 4
    entries = [(256, short, 1, 8), (257, short, 1, 8), (258, short, bands, after)]
    entries += [(259, short, 1, 1), (262, short, 1, 2), (273, long, 1, after + 2 * bands)]
    entries += [(277, short, 1, bands), (278, short, 1, 8), (279, long, 1, pixels.size)]
    entries += [(338, short, 1, *extra)] if extra else []
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, count) + directory + bytes(4)
    path.write_bytes(head + struct.pack(f"<{bands}H", *[8] * bands) + pixels.tobytes())
    return pixels[..., :3].astype(int)


def test_a_fourth_band_is_transparency_only_if_the_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for extra in ((), (0,)):  # nothing, or "unspecified"
        colours = write_bands(path, 4, *extra)
        assert (loaded(path) == colours).all()
    colours = write_bands(path, 4, 2)
    on_white = np.round(colours * 40 / 255 + 255 - 40)
    assert abs(loaded(path) - on_white).max() <= 1


def test_grey_has_one_depth_in_all_of_a_domain(tmp_path: Path, capsys) -> None:
    tops = {"a": (4090, 900, 100), "b": (4100, 900), "c": (255, 20), "d": (1000,)}
    domains = {}
    for name, values in tops.items():
        domains[name] = [tmp_path / f"{name}{i}.tif" for i in range(len(values))]
        for path, value in zip(domains[name], values, strict=True):
            Image.fromarray(np.array([[value, value // 2]] * 4, np.uint16)).save(path)
    Image.new("L", (4, 4), 77).save(tmp_path / "l.png")
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    domains["a"] += [tmp_path / "l.png", tmp_path / "broken.tif"]
    domains["colour"] = [tmp_path / "l.png"]
    images.find_depths(domains)
    assert capsys.readouterr().out.splitlines() == [
        "a: 3 images read as 12-bit grey (largest value 4,090)",
        "b: 2 images read as 14-bit grey (largest value 4,100)",
        "c: 2 images read as 8-bit grey (largest value 255)",
        "d: 1 image read as 10-bit grey (largest value 1,000)",
    ]
    assert (loaded(tmp_path / "l.png") == 77).all()
    dark = images.load_image(domains["a"][2])
    assert np.asarray(dark)[0, 0].tolist() == [round(100 * 255 / 4095)] * 3
    with pytest.raises(UserError, match="its values, 2050 to 4100, do not fit into 12 bits"):
        images.load_image(domains["b"][0], 12)


@pytest.mark.parametrize("cache", ["ram", "off"])
def test_grey_is_as_deep_in_training_and_in_files_as_its_domain_is(
    root: Path, tmp_path: Path, office, capsys, cache: str
) -> None:
    values = {"amazon": 4095, "webcam": 60000}
    for n, (domain, top) in enumerate(values.items()):
        for i, path in enumerate(sorted((root / domain).rglob("*.jpg"))):
            path.unlink()
            noise = np.random.default_rng([n, i]).integers(0, 256, (40, 40), dtype=np.uint16)
            noise[0, 0] = top if i == 0 else 0  # 8 bits would hold the others
            Image.fromarray(noise).save(path.with_suffix(".png"))
    check_images([load_task("office31", root, "A2W")])
    told = [
        f"{name}: 9 images read as {bits}-bit grey"
        for name, bits in (("amazon", 12), ("webcam", 16))
    ]
    shown = capsys.readouterr().out
    assert all(line in shown for line in told)
    seen = []
    read = images._upright

    def noted(file: ImageFile.ImageFile, bits: int | None) -> Image.Image:
        seen.append(bits)
        return read(file, bits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_upright", noted)
        office(max_steps=1, cache=cache)
    shown = capsys.readouterr().out
    assert all(line in shown for line in told)
    assert {*seen} == {12, 16}


@pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
def test_an_image_of_too_many_pixels_is_reduced_and_named(
    tmp_path: Path, monkeypatch, kind
) -> None:
    path = tmp_path / f"large.{kind}"
    Image.new("RGB", (200, 100), (200, 30, 30)).save(path)
    assert images.load_image(path).size == (200, 100)
    monkeypatch.setattr(images, "LARGE", 6000)
    with pytest.warns(UserWarning, match=rf"{path}: 200 x 100 pixels, reduced to 1/2 of each side"):
        image = images.load_image(path)
    assert image.size == (100, 50)
    assert np.abs(np.asarray(image) - [200.0, 30, 30]).max() < 6
    monkeypatch.setattr(images, "LARGEST", 19_999)
    with pytest.raises(
        UserError, match=rf"{path}: 200 x 100 pixels, more than .*: save a smaller copy"
    ):
        images.load_image(path)


def test_pillows_own_limit_does_not_apply(tmp_path: Path) -> None:
    """179 megapixels; of two colours, so that it is quick."""
    Image.new("1", (13_400, 13_400)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (13_400, 13_400)


# Names


NAMES = [b"caf\xe9.jpg", b"\xff\xfe.jpg", "\u00e9\u4e2d.jpg".encode(), b"line\nend.jpg"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_works_from_check_to_predictions(office, root: Path, capsys, name: bytes) -> None:
    odd = root / "webcam/mug" / os.fsdecode(name)
    (root / "webcam/mug/0.jpg").rename(odd)
    (root / "amazon/mug/0.jpg").rename(root / "amazon/mug" / odd.name)
    assert check_images([load_task("office31", root, "A2W")])
    shutil.copytree(root / "webcam/mug", root / "flat")
    folders = {"root": None, "tasks": ("all",), "source": root / "amazon", "target": root / "flat"}
    office(dataset="folders", batch_size=2, max_steps=1, **folders)
    (run,) = (root.parent / "runs").rglob("result.json")
    assert len(read_predictions(run.parent / "predictions.csv")) == 3
    assert files.load(run.parent / "model.pt")["categories"] == ["bike", "mouse", "mug"]
    capsys.readouterr().out.encode()


def test_a_broken_image_of_any_name_is_named_in_visible_characters(tmp_path: Path) -> None:
    for name in NAMES:
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(b"no image")
        with pytest.raises(UserError, match="cannot read the image") as caught:
            images.load_image(path)
        assert len(str(caught.value).encode().splitlines()) == 1


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


# Decoding all images once


def test_every_image_is_decoded_and_resized(odd_images: list[Path], tmp_path: Path) -> None:
    decoded = images.decode("ram", odd_images * 2, PAPER, CPU, tmp_path / "runs")
    assert [*decoded] == odd_images
    assert decoded[odd_images[-1]].shape == (3, 341, 256)  # turned by EXIF
    for path, image in decoded.items():
        assert torch.equal(image, images.resized(path, PAPER))
    small = images.decode("ram", odd_images, Preprocessing(36, 32), CPU, tmp_path / "runs")
    assert {min(image.shape[1:]) for image in small.values()} == {36}


def test_decoded_images_are_in_a_file_that_is_nowhere_to_be_found(
    odd_images: list[Path], tmp_path: Path
) -> None:
    decoded = images.decode("ram", odd_images, PAPER, CPU, tmp_path / "runs")
    assert [*(tmp_path / "runs").iterdir()] == []
    assert len({image.untyped_storage().data_ptr() for image in decoded.values()}) == 1
    if sys.platform == "linux":
        maps = Path("/proc/self/maps").read_text().splitlines()
        assert any(str(tmp_path / "runs") in line and "(deleted)" in line for line in maps)


def test_the_size_of_decoded_images_is_printed(
    odd_images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decoded = images.decode("device", odd_images * 2, PAPER, CPU, tmp_path)
    size = tqdm.format_sizeof(sum(image.nbytes for image in decoded.values()), "B")
    assert capsys.readouterr().out == f"images in memory: {size}\n"
    assert images.decode("off", odd_images, PAPER, CPU, tmp_path) == {}
    assert images.decode("ram", [], PAPER, CPU, tmp_path) == {}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("cache", ["ram", "device", "off"])
def test_unreadable_images_are_reported_by_path(
    odd_images: list[Path], tmp_path: Path, cache: str
) -> None:
    cut, empty = odd_images[1], odd_images[0].with_name("empty.jpg")
    os.truncate(cut, cut.stat().st_size // 2)
    empty.touch()
    with pytest.raises(UserError) as caught:
        images.decode(cache, [*odd_images, empty], PAPER, CPU, tmp_path / "runs")
    lines = str(caught.value).splitlines()
    for line, path in zip(lines, (cut, empty), strict=True):
        assert line.startswith(f"cannot read the image {path}: ")


def test_a_full_disk_is_one_line_that_advises_not_to_keep_the_images(
    odd_images: list[Path], tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(UserError) as caught:
            images.decode("ram", odd_images, PAPER, CPU, tmp_path / "runs")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value).startswith(f"cannot keep the decoded images in {tmp_path / 'runs'}: ")
    assert str(caught.value).endswith("or use --cache off")
    assert [*(tmp_path / "runs").iterdir()] == []


DECODE = """
import sys
from pathlib import Path
import torch
from office import distributed
from office.console import UserError
from office.data import images

folder, *paths = map(Path, sys.argv[1:])
read, reads = images.load_image, []
images.load_image = lambda path: reads.append(path) or read(path)
with distributed.process_group(torch.device("cpu")):
    try:
        decoded = images.decode("ram", paths, images.Preprocessing(), torch.device("cpu"), folder)
    except UserError as error:
        sys.exit(f"rank {distributed.rank()}: {error}")
    images.load_image = read
    same = [torch.equal(decoded[p], images.resized(p, images.Preprocessing())) for p in paths]
    assert all(same)
    sys.stdout.write(f"{len(reads)}\\n")  # at once, or two processes share a line
"""


def decode_in_two_processes(folder: Path, paths: list[Path]) -> subprocess.CompletedProcess[str]:
    script = folder / "decode.py"
    script.write_text(DECODE)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    places = [str(driver.SCRIPT.parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [*torchrun, script, folder / "runs", *paths],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_of_two_processes_one_decodes_for_both(odd_images: list[Path], tmp_path: Path) -> None:
    done = decode_in_two_processes(tmp_path, odd_images)
    assert done.returncode == 0, done.stderr
    counts = [line for line in done.stdout.splitlines() if line.isdigit()]
    assert sorted(counts) == ["0", str(len(odd_images))]
    assert done.stdout.count("images in memory") == 1
    assert [*(tmp_path / "runs").iterdir()] == []
    odd_images[0].write_text("no image")
    failed = decode_in_two_processes(tmp_path, odd_images)
    assert failed.returncode == 1
    assert failed.stderr.count(f"rank 0: cannot read the image {odd_images[0]}") == 1
    assert "rank 1: " not in failed.stderr
