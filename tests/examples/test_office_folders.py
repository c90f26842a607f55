"""What is in a folder beside images: nothing is dropped in silence."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from office.console import UserError
from office.data import images, layouts
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mug").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "mug/0.jpg")
    return tmp_path / "mug"


def reasons(folder: Path) -> dict[str, str]:
    return {item.path.name: item.why for item in layouts.look(folder).skipped}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.JPG", "JPEG"), ("a.jfif", "JPEG"), ("b.apng", "PNG"), ("b.jp2", "JPEG2000")],
)
def test_an_image_is_told_by_its_suffix(folder: Path, name: str, kind: str) -> None:
    Image.new("RGB", (32, 32), (200, 30, 30)).save(folder / name, kind)
    contents = layouts.look(folder)
    assert [path.name for path in contents.images] == sorted(["0.jpg", name])
    assert contents.skipped == []
    assert np.abs(np.asarray(images.load_image(folder / name)) - [200.0, 30, 30]).max() < 6


def test_other_files_are_skipped_with_the_reason(folder: Path) -> None:
    for name in ("notes.txt", "b", "raw.NEF", "film.mpg", "d.eps"):
        shutil.copy(folder / "0.jpg", folder / name)
    (folder / "gone").symlink_to("nowhere")
    (folder / "photos.zip").touch()
    os.mkfifo(folder / "pipe.jpg")
    others = ("notes.txt", "b", "raw.NEF", "film.mpg", "d.eps", "gone", "pipe.jpg")
    archive = {"photos.zip": "an archive: unpack it first"}
    assert reasons(folder) == dict.fromkeys(others, "not an image file") | archive
    with pytest.raises(UserError, match="not a regular file"):
        images.load_image(folder / "pipe.jpg")


def test_a_file_with_a_usual_suffix_is_not_opened(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("builtins.open", lambda *_: pytest.fail("opened"))
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    assert layouts.look(folder).images == [folder / "0.jpg"]


@pytest.mark.parametrize("name", ["gone.jpg", "empty.jpg", "text.jpeg"])
def test_a_broken_image_is_not_skipped_but_named_when_read(folder: Path, name: str) -> None:
    (folder / "empty.jpg").touch()
    (folder / "text.jpeg").write_text("no image")
    (folder / "gone.jpg").symlink_to("nowhere")
    assert folder / name in layouts.look(folder).images
    with pytest.raises(UserError, match=f"cannot read the image .*{name}"):
        images.load_image(folder / name)


LEFT_BEHIND = [
    *(".DS_Store", "._0.txt", ".nfs0001", "Thumbs.db", "Desktop.ini", "~$list.xlsx"),
    *("@eaDir/0.jpg@SynoEAStream", "__MACOSX/mug/._0.txt", ".git/HEAD", "#recycle/x"),
]


@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_what_systems_leave_behind_is_not_reported(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"left behind")
    contents = layouts.look(folder)
    assert [path.name for path in contents.images] == ["0.jpg"]
    assert contents.folders == contents.skipped == []


@pytest.mark.parametrize("name", [".1.jpg", "_old/1.jpg", "@eaDir/1/1.jpg", "$RECYCLE.BIN/1.png"])
def test_hidden_images_are_reported(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "0.jpg", folder / name)
    (item,) = layouts.look(folder).skipped
    assert item.path == folder / name
    begins = f"in a folder whose name begins with {name[0]}"
    assert item.why == ("a hidden file" if name[0] == "." else begins)


def test_a_summary_has_the_first_three_names_for_each_reason() -> None:
    items = [layouts.Skipped(Path(f"a/{i}.txt"), "a text") for i in range(5)]
    items.insert(2, layouts.Skipped(Path("line\nend"), "an empty file"))
    assert layouts.summary("amazon", items) == (
        r"amazon: 6 skipped: 0.txt, 1.txt, 2.txt, 2 more (a text); line\nend (an empty file)"
    )


def test_a_folder_is_searched_at_any_depth_once(folder: Path) -> None:
    (folder / "b/c").mkdir(parents=True)
    (folder / "_d").mkdir()
    for name in ("b/1.jpg", "b/c/2.jpg", "_d/3.jpg"):
        shutil.copy(folder / "0.jpg", folder / name)
    (folder / "b/c/round").symlink_to(folder)
    contents = layouts.look_below(folder)
    assert contents.images == [folder / name for name in ("0.jpg", "b/1.jpg", "b/c/2.jpg")]
    why = "in a folder whose name begins with _"
    assert contents.skipped == [layouts.Skipped(folder / "_d/3.jpg", why)]


# HEIC


@pytest.mark.parametrize("suffix", [".HEIC", ".avif"])
def test_what_an_image_needs_is_told(folder: Path, monkeypatch, suffix: str) -> None:
    monkeypatch.setattr(layouts, "SUFFIXES", images.SUFFIXES - {suffix.lower()})
    (folder / f"a{suffix}").touch()
    needed = {".HEIC": "pillow-heif: pip install pillow-heif", ".avif": "Pillow 11.3 or newer"}
    assert reasons(folder) == {f"a{suffix}": f"it needs {needed[suffix]}"}


def test_with_pillow_heif_heic_is_read(folder: Path) -> None:
    pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install pillow-heif")
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :32, 0] = 255
    for name in ("a.HEIC", "b.hif", "c.jpg"):
        Image.fromarray(pixels).save(folder / name, "HEIF", quality=95)
        image = np.asarray(images.load_image(folder / name)).astype(int)
        assert np.abs(image - pixels).mean() < 6
    assert len(layouts.look(folder).images) == 4
