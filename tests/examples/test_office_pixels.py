"""Images of odd depth, with broken blocks, and under names that are not UTF-8."""

import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from office import files
from office.console import UserError
from office.data import images, tasks
from office.data.check import check_images
from office.results import outputs
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin

pytestmark = pytest.mark.filterwarnings("ignore:.*published")


def loaded(path: Path) -> np.ndarray:
    return np.asarray(images.load_image(path)).astype(int)


# Depth


def grey(bits: int) -> np.ndarray:
    """200 of 255 nearly everywhere, and the largest value of some bits."""
    values = np.full((16, 16), round(200 / 255 * (2**bits - 1)))
    values[0, 0] = 2**bits - 1
    return values


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("a.tif", "<u2"), ("b.tif", ">u2"), ("c.tif", "<i4"), ("d.png", "<u2"), ("e.jp2", "<u2")],
)
def test_deep_grey_is_as_bright_as_8_bits(tmp_path: Path, bits: int, name: str, dtype: str) -> None:
    Image.fromarray(grey(bits).astype(dtype)).save(tmp_path / name)
    assert abs(loaded(tmp_path / name)[1:] - 200).max() <= 1
    assert (loaded(tmp_path / name)[0, 0] == 255).all()


@pytest.mark.parametrize("most", [0, 1, 255, 256, 1023, 1024, 4095, 4096, 16383, 16384, 65535])
def test_the_fewest_bits_that_hold_the_maximum(tmp_path: Path, most: int) -> None:
    values = np.array([[most, most // 2]] * 4, np.int32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    bits = min(bits for bits in (8, 10, 12, 14, 16) if most <= 2**bits - 1)
    expected = np.round(values * 255 / (2**bits - 1))
    assert (loaded(tmp_path / "a.tif") == expected[..., None]).all()


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        ([-1, 5], "i4", "values from -1 to 5: save it with 8 or 16 bits"),
        ([0, 65536], "i4", "values from 0 to 65536"),
        ([0, 1.5], "f4", r"floats from 0 to 1.5: save it with values in \[0, 1\]"),
        ([-0.1, 1], "f4", "floats from -0.1 to 1"),
        ([np.nan, 1], "f4", "floats from nan to nan"),
        ([np.inf, 1], "f4", "floats from 1 to inf"),
    ],
)
def test_grey_of_no_known_range_is_refused(tmp_path, values, dtype, message) -> None:
    Image.fromarray(np.array([values] * 2, dtype)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=message):
        images.load_image(tmp_path / "a.tif")


def test_floats_from_0_to_1_become_0_to_255(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "f.tiff")
    np.testing.assert_allclose(loaded(tmp_path / "f.tiff")[..., 0], 255 * values, atol=0.5 + 1e-4)


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
    with pytest.raises(UserError, match=r"12\.tif: 16 bits per colour, but the high ones unused"):
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
    with pytest.raises(UserError, match=r"12\.png: 16 bits per colour, but the high ones unused"):
        images.load_image(tmp_path / "12.png")


# Size


@pytest.mark.parametrize("size", [(3, 301), (301, 3)])
def test_an_image_far_longer_than_wide_is_refused_before_it_fills_the_memory(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=f"{size[0]} x {size[1]} pixels, more than 100 times as"):
        images.load_image(tmp_path / "a.png")
    Image.new("RGB", (300, 3)).save(tmp_path / "b.png")
    assert images.load_image(tmp_path / "b.png").size == (300, 3)


# EXIF


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_is_that_of_pillow(tmp_path: Path, orientation: int, compression) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    exif, tags = Image.Exif(), TiffImagePlugin.ImageFileDirectory_v2()
    exif[0x0112] = tags[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "a.tif", tiffinfo=tags, compression=compression)
    for name in ("a.png", "a.tif"):
        with Image.open(tmp_path / name) as image:
            assert (loaded(tmp_path / name) == np.asarray(ImageOps.exif_transpose(image))).all()


BROKEN = [b"", b"x", b"no TIFF at all", b"II*\0\x08\0\0\0\xff\xff", b"II*\0\xff\xff\xff\x7f"]


@pytest.mark.parametrize("block", BROKEN)
@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
@pytest.mark.filterwarnings("ignore:.*orrupt EXIF")
def test_a_broken_exif_block_leaves_the_image_unrotated(tmp_path, kind: str, block: bytes) -> None:
    pixels = np.full((6, 9, 3), 90, np.uint8)
    block = b"Exif\0\0" + block if kind == "jpg" else block
    Image.fromarray(pixels).save(tmp_path / f"a.{kind}", exif=block)
    assert (loaded(tmp_path / f"a.{kind}") == pixels).all()


def test_a_png_whose_exif_has_a_wrong_checksum_or_is_no_hex(tmp_path: Path) -> None:
    path, pixels = tmp_path / "a.png", np.full((6, 9, 3), 90, np.uint8)
    Image.fromarray(pixels).save(path, exif=b"II*\0\x08\0\0\0\0\0")
    content = path.read_bytes()
    start = content.index(b"eXIf")
    end = start + 4 + int.from_bytes(content[start - 4 : start], "big")
    path.write_bytes(content[:end] + b"\0\0\0\0" + content[end + 4 :])
    assert (loaded(path) == pixels).all()
    assert images.look(path).mode == "RGB"
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n 4\nzzzz\n")
    Image.fromarray(pixels).save(path, pnginfo=text)
    assert (loaded(path) == pixels).all()
    path.write_bytes(content[:-30])  # pixels that are broken are refused as ever
    with pytest.raises(UserError, match=r"cannot read the image .*a\.png"):
        images.load_image(path)


# Names


NAMES = [b"caf\xe9.jpg", b"\xff\xfe.jpg", "\u00e9\u4e2d.jpg".encode(), b"line\nend.jpg"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_works_from_check_to_predictions(office, root: Path, capsys, name: bytes) -> None:
    odd = root / "webcam/mug" / os.fsdecode(name)
    (root / "webcam/mug/0.jpg").rename(odd)
    (root / "amazon/mug/0.jpg").rename(root / "amazon/mug" / odd.name)
    assert check_images([tasks.load_task("office31", root, "A2W")])
    shutil.copytree(root / "webcam/mug", root / "flat")
    folders = {"root": None, "tasks": ("all",), "source": root / "amazon", "target": root / "flat"}
    office(dataset="folders", batch_size=2, max_steps=1, **folders)
    (run,) = (root.parent / "runs").rglob("result.json")
    assert len(outputs.read_predictions(run.parent / "predictions.csv")) == 3
    assert files.load(run.parent / "model.pt")["categories"] == ["bike", "mouse", "mug"]
    capsys.readouterr().out.encode()


def test_a_broken_image_of_any_name_is_named_in_visible_characters(tmp_path: Path) -> None:
    for name in NAMES:
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(b"no image")
        with pytest.raises(UserError, match="cannot read the image") as caught:
            images.load_image(path)
        assert len(str(caught.value).encode().splitlines()) == 1
