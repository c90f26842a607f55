"""Files as people have them, and data that cannot be right."""

import os
import shutil
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from office.console import UserError
from office.data import datasets, formats, images, listing
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore:.*published")


def load(root: Path) -> datasets.Task:
    return datasets.load_task("office31", root, "A2W")


def left_out(domain: datasets.Domain) -> list[str]:
    return [item.path.name for item in domain.left_out]


# Images left out


def test_pillow_decides_what_is_an_image(tree: Callable[..., Path]) -> None:
    root = tree()
    folder = root / "amazon/mug"
    shutil.copy(folder / "0.jpg", folder / "photo.jfif")
    Image.open(folder / "0.jpg").save(folder / "scan", "PNG")
    Image.open(folder / "0.jpg").save(folder / "picture.txt", "BMP")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*published")
        task = load(root)
    assert len(task.source.paths) == 15
    assert {"photo.jfif", "scan", "picture.txt"} < {path.name for path in task.source.paths}


def test_what_is_left_out_is_named_and_counted(
    tree: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(images=2)
    mug = root / "amazon/mug"
    (mug / "notes.txt").write_text("a text")
    (mug / "more").mkdir()
    shutil.copy(mug / "0.jpg", mug / "more/9.jpg")
    shutil.copy(mug / "0.jpg", root / "amazon/stray.jpg")
    os.mkfifo(mug / "pipe.jpg")
    with pytest.warns(UserWarning, match=r"amazon: 4 skipped: stray\.jpg .* 9\.jpg"):
        task = load(root)
    assert len(task.source.paths) == 6
    assert datasets.check([task])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["category", "amazon", "webcam", "skipped"]
    assert [line.split() for line in lines[3:6]] == [
        ["mug", "2", "2", "3"],
        ["no", "category", "-", "-", "1"],
        ["all", "6", "6", "4"],
    ]
    named = {
        line.partition("skipped: ")[2].partition(" (")[0]
        for line in lines
        if line.startswith("skipped")
    }
    assert named == {
        str(root / "amazon" / name)
        for name in ("stray.jpg", "mug/more/9.jpg", "mug/notes.txt", "mug/pipe.jpg")
    }


def test_what_systems_leave_behind_is_loud_only_as_an_image(tree: Callable[..., Path]) -> None:
    root = tree(images=2)
    mug = root / "amazon/mug"
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.jpg"):
        (mug / name).write_text("left behind")
    (mug / "@eaDir").mkdir()
    (root / "amazon/__MACOSX").mkdir()
    (root / "amazon/__MACOSX/._0.jpg").write_text("left behind")
    assert left_out(load(root).source) == []
    shutil.copy(mug / "0.jpg", mug / "@eaDir/thumb.jpg")
    shutil.copy(mug / "0.jpg", mug / ".hidden.jpg")
    with pytest.warns(UserWarning, match=r"skipped: \.hidden\.jpg .*thumb\.jpg"):
        assert len(load(root).source.paths) == 6


def test_a_heic_image_says_what_reads_it(tree: Callable[..., Path], monkeypatch) -> None:
    root = tree(images=2)
    (root / "amazon/mug/a.HEIC").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(64))
    monkeypatch.setattr(formats, "HEIF", False)
    with pytest.warns(UserWarning, match=r"a\.HEIC \(.*pip install pillow-heif"):
        load(root)


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    heif.register_heif_opener()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / "a.HEIC", "HEIF")
    assert listing.look(tmp_path).images == [tmp_path / "a.HEIC"]
    pixels = np.asarray(images.load_image(tmp_path / "a.HEIC")).astype(int)
    assert np.abs(pixels - [200, 30, 30]).max() < 12


def test_a_category_with_other_files_alone_says_so(tree: Callable[..., Path]) -> None:
    root = tree(images=1)
    (root / "amazon/mug/0.jpg").rename(root / "amazon/mug/0.txt")
    (root / "amazon/mug/0.txt").write_text("no image")
    with pytest.raises(UserError, match=r"mug of domain amazon has no images, only 0\.txt"):
        load(root)


# Data that cannot be right


def test_a_single_category_is_refused(tree: Callable[..., Path]) -> None:
    root = tree(categories=("mug",))
    with pytest.raises(UserError, match="single category, mug, so every prediction would be right"):
        load(root)
    with pytest.raises(UserError, match="single category"):
        datasets.load_folders(root / "amazon", root / "webcam/mug")


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_domain_of_links_to_the_other_is_refused(tree: Callable[..., Path], link) -> None:
    root = tree(images=2)
    for path in (root / "webcam").rglob("*.jpg"):
        path.unlink()
        link(root / "amazon" / path.relative_to(root / "webcam"), path)
    with pytest.raises(UserError, match="are the same images: 6 of 6 and 6 of 6 files"):
        load(root)
    shutil.rmtree(root / "webcam")
    (root / "webcam").symlink_to(root / "amazon")
    with pytest.raises(UserError, match="are the same images"):
        load(root)


def test_a_few_shared_images_are_told(tree: Callable[..., Path]) -> None:
    root = tree(images=2)
    (root / "webcam/mug/0.jpg").unlink()
    (root / "webcam/mug/0.jpg").symlink_to(root / "amazon/mug/0.jpg")
    with pytest.warns(UserWarning, match="1 image is in both amazon and webcam"):
        load(root)


def test_of_several_benchmarks_the_one_that_fits_is_taken(tree: Callable[..., Path]) -> None:
    ten, many = (tuple(f"c{i:02}" for i in range(n)) for n in (10, 31))
    tree(categories=many, images=1, name="all/a_office31")
    root = tree(categories=ten, images=1, name="all/b_caltech").parent
    tree(categories=ten, images=1, name="all/c_incomplete", domains=("amazon",))
    task = datasets.load_task("office-caltech10", root, "A2W")
    assert len(task.categories) == 10
    assert all("b_caltech" in path.parts for path in (*task.source.paths, *task.target.paths))
    task = load(root)
    assert len(task.categories) == 31
    assert all("a_office31" in path.parts for path in (*task.source.paths, *task.target.paths))


def test_another_benchmarks_folder_is_refused(tree: Callable[..., Path]) -> None:
    root = tree(categories=tuple(f"c{i:02}" for i in range(31)), images=1)
    with pytest.raises(UserError, match=r"office-caltech10 has 10 categories, but .* of office31"):
        datasets.load_task("office-caltech10", root, "A2W")


@pytest.mark.parametrize("folder", ["amazon", "webcam"])
def test_two_unicode_forms_are_one_category(tree: Callable[..., Path], folder: str) -> None:
    root = tree(categories=("bike", unicodedata.normalize("NFC", "café")))
    composed = root / folder / unicodedata.normalize("NFC", "café")
    composed.rename(composed.with_name(unicodedata.normalize("NFD", "café")))
    assert load(root).categories == ["bike", unicodedata.normalize("NFC", "café")]


@pytest.mark.parametrize(
    ("other", "shown"), [("caf\u0435", r"'caf\\u0435'"), ("mug ", "'mug '"), ("m\u00a0ug", r"xa0")]
)
def test_names_that_look_alike_are_shown_apart(
    tree: Callable[..., Path], other: str, shown: str
) -> None:
    root = tree(categories=("bike", "cafe", "mug"))
    (root / "webcam" / ("cafe" if "f" in other else "mug")).rename(root / "webcam" / other)
    with pytest.raises(UserError, match=f"missing in amazon: .*{shown}"):
        load(root)


def test_names_that_are_not_utf8_are_read_and_shown(
    tree: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(images=2)
    odd = os.fsdecode(b"caf\xe9.jpg")
    (root / "amazon/mug/0.jpg").rename(root / "amazon/mug" / odd)
    task = load(root)
    assert odd in [path.name for path in task.source.paths]
    assert datasets.check([task])
    for domain in ("amazon", "webcam"):
        (root / domain / "mug").rename(root / domain / os.fsdecode(b"m\xfcg"))
    assert datasets.check([load(root)])
    assert "m\\udcfcg" in capsys.readouterr().out


# Lists of other systems


def rewritten(root: Path, change: Callable[[str], str], encoding: str = "utf-8") -> datasets.Task:
    for path in (root / "image_list").iterdir():
        path.write_bytes(change(path.read_text()).encode(encoding))
    return load(root)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_lists_with_a_byte_order_mark(tree: Callable[..., Path], encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    assert len(rewritten(tree("image_list"), lambda t: mark + t, encoding).source.paths) == 12


@pytest.mark.parametrize("prefix", ["", ".\\", "C:\\data\\office\\", "\\\\server\\share\\"])
def test_lists_with_backslashes(tree: Callable[..., Path], prefix: str) -> None:
    def windows(text: str) -> str:
        return "".join(prefix + line.replace("/", "\\") + "\r\n" for line in text.splitlines())

    assert len(rewritten(tree("image_list"), windows).source.paths) == 12


@pytest.mark.filterwarnings("ignore:.*1 line repeats")
def test_lists_with_quotes_tabs_and_repetitions(tree: Callable[..., Path]) -> None:
    def quoted(text: str) -> str:
        lines = [line.rsplit(maxsplit=1) for line in text.splitlines()]
        return "".join(f'"{path}"\t{label}\n' for path, label in [*lines, lines[0]])

    assert len(rewritten(tree("image_list"), quoted).source.paths) == 12


def test_an_image_with_two_labels_is_named(tree: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"line 13: .*bike/0\.jpg has label 0 above"):
        rewritten(tree("image_list"), lambda t: t + t.splitlines()[0][:-1] + "2\n")


def test_a_list_in_another_unicode_form_finds_its_files(tree: Callable[..., Path]) -> None:
    root = tree("image_list", images=1)
    image = root / "amazon/images/mug/0.jpg"
    image.rename(image.with_name(unicodedata.normalize("NFC", "é.jpg")))
    decomposed = unicodedata.normalize("NFD", "é.jpg")
    path = root / "image_list/amazon.txt"
    path.write_text(path.read_text().replace("mug/0.jpg", f"mug/{decomposed}"))
    assert len(load(root).source.paths) == 3


# Pixels


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_grey_is_scaled_by_the_bits_it_holds(tmp_path: Path, bits: int) -> None:
    largest = 2**bits - 1
    deep = np.linspace(0, 0.9 * largest, 64).round().astype(np.uint16).reshape(8, 8)
    for kind in ("png", "tiff"):
        Image.fromarray(deep).save(tmp_path / f"deep.{kind}")
        pixels = np.asarray(images.load_image(tmp_path / f"deep.{kind}"))[..., 0]
        np.testing.assert_allclose(pixels, deep.astype(float) * 255 / largest, atol=0.5 + 1e-9)


def test_floats_from_0_to_1_become_0_to_255(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "f.tiff")
    pixels = np.asarray(images.load_image(tmp_path / "f.tiff"))[..., 0]
    np.testing.assert_allclose(pixels, 255 * values, atol=0.5 + 1e-4)
    for wrong in (values - 1, values * 255, values * np.nan):
        Image.fromarray(wrong.astype(np.float32)).save(tmp_path / "f.tiff")
        with pytest.raises(UserError, match="floats from"):
            images.load_image(tmp_path / "f.tiff")


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_a_broken_exif_block_costs_the_rotation_alone(tmp_path: Path, kind: str) -> None:
    image = Image.new("RGB", (24, 16), (200, 30, 30))
    block = b"Exif\x00\x00no TIFF" if kind == "jpg" else b"no TIFF at all"
    image.save(tmp_path / f"a.{kind}", exif=block)
    assert images.load_image(tmp_path / f"a.{kind}").size == (24, 16)
    assert images.look(tmp_path / f"a.{kind}").mode == "RGB"
