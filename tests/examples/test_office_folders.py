"""What is in a folder beside images: nothing is dropped in silence."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import train_office
from office.console import UserError
from office.data import images
from PIL import Image

HEIC = b"\0\0\0\x18ftypheic" + bytes(64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mug").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "mug/0.jpg")
    return tmp_path / "mug"


def reasons(folder: Path) -> dict[str, str]:
    return {item.path.name: item.why for item in folders.look(folder).skipped}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[(f"a.{suffix}", "JPEG") for suffix in ("JPG", "jfif", "jpg_large", "txt", "h5")],
        *[("b.apng", "PNG"), ("b", "PNG"), ("b.tga", "TGA"), ("b.jp2", "JPEG2000")],
        *[("c.ico", "ICO"), ("c.pcx", "PCX"), ("c.sgi", "SGI"), ("c.mpo", "MPO")],
    ],
)
def test_pillow_decides_what_is_an_image(folder: Path, name: str, kind: str) -> None:
    Image.new("RGB", (32, 32), (200, 30, 30)).save(folder / name, kind)
    contents = folders.look(folder)
    assert [path.name for path in contents.images] == sorted(["0.jpg", name])
    assert contents.skipped == []
    assert np.abs(np.asarray(images.load_image(folder / name)) - [200.0, 30, 30]).max() < 6


NO_IMAGES = {
    "notes.txt": b"0 0.5 0.5 0.2 0.2\n",
    "list.txt": b"P5 is a plan\n",
    "car.txt": b"BMW, red\n",
    "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "features.h5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "film.mpg": b"\0\0\1\xb3\x16\0\xf0\xc4" + bytes(64),
    "drawing.wmf": b"\xd7\xcd\xc6\x9a\0\0" + bytes(64),
    "font.ttf": b"\0\1\0\0\0\x0c" + bytes(64),
    "zeros.bin": bytes(4096),
    "array.npy": b"\x93NUMPY\1\0v\0{'descr': '<f4'}" + np.ones(512, "f4").tobytes(),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_other_files_are_skipped(folder: Path, name: str) -> None:
    (folder / name).write_bytes(NO_IMAGES[name])
    assert reasons(folder) == {name: "not an image that Pillow can open"}


def test_files_that_cannot_be_read_are_skipped_with_the_reason(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    (folder / "gone").symlink_to("nowhere")
    (folder / "round").symlink_to("round")
    (folder / "empty").touch()
    Image.new("RGB", (8, 8)).save(folder / "photo.dng", "TIFF")  # as a camera's preview
    Image.new("RGB", (8, 8)).save(folder / "photo.NEF", "TIFF")
    assert reasons(folder) == {
        "pipe.jpg": "not a regular file",
        "gone": "a link to nothing",
        "round": "a link to nothing",
        "empty": "an empty file",
        "photo.dng": folders.RAW,
        "photo.NEF": folders.RAW,
    }
    with pytest.raises(UserError, match="not a regular file"):
        images.load_image(folder / "pipe.jpg")


def test_a_file_with_a_usual_suffix_is_not_opened(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("builtins.open", lambda *_: pytest.fail("opened"))
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    assert folders.look(folder).images == [folder / "0.jpg"]


@pytest.mark.parametrize("name", ["gone.jpg", "empty.jpg", "text.jpeg"])
def test_a_broken_image_is_not_skipped_but_named_when_read(folder: Path, name: str) -> None:
    (folder / "empty.jpg").touch()
    (folder / "text.jpeg").write_text("no image")
    (folder / "gone.jpg").symlink_to("nowhere")
    assert folder / name in folders.look(folder).images
    with pytest.raises(UserError, match=f"cannot read the image .*{name}"):
        images.load_image(folder / name)


LEFT_BEHIND = [
    *(".DS_Store", "._0.jpg", ".nfs0001", "Thumbs.db", "ehthumbs_vista.db", "Desktop.ini"),
    *("Icon\r", "~$list.xlsx", "0.jpg:Zone.Identifier", "0.jpg@SynoEAStream", ".line\nend"),
    *("@eaDir/0.jpg@SynoEAStream", "@eaDir/0.jpg/info", "@tmp/x", "__MACOSX/mug/._0.jpg"),
    *(".git/HEAD", "#recycle/x", "$RECYCLE.BIN/desktop.ini", "System Volume Information/x"),
]


@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_what_systems_leave_behind_is_reported_only_if_it_is_an_image(
    folder: Path, name: str
) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    contents = folders.look(folder)
    assert [path.name for path in contents.images] == ["0.jpg"]
    assert contents.folders == contents.skipped == []
    shutil.copy(folder / "0.jpg", path)
    (item,) = folders.look(folder).skipped
    assert item.path == path
    assert "hidden" in item.why


def test_an_image_that_icloud_has_not_loaded_is_reported(folder: Path) -> None:
    (folder / ".1.jpg.icloud").write_bytes(b"bplist00")
    assert reasons(folder) == {".1.jpg.icloud": "not downloaded from iCloud"}


def test_a_summary_has_the_first_three_names_for_each_reason() -> None:
    items = [folders.Skipped(Path(f"a/{i}.txt"), "a text") for i in range(5)]
    items.insert(2, folders.Skipped(Path("line\nend"), "an empty file"))
    assert folders.summary("amazon", items) == (
        r"amazon: 6 skipped: 0.txt, 1.txt, 2.txt, 2 more (a text); line\nend (an empty file)"
    )


def test_a_folder_is_searched_at_any_depth_once(folder: Path) -> None:
    (folder / "b/c").mkdir(parents=True)
    (folder / "_d").mkdir()
    for name in ("b/1.jpg", "b/c/2.jpg", "_d/3.jpg"):
        shutil.copy(folder / "0.jpg", folder / name)
    (folder / "b/c/round").symlink_to(folder)
    contents = folders.look_below(folder)
    assert contents.images == [folder / name for name in ("0.jpg", "b/1.jpg", "b/c/2.jpg")]
    why = "in a folder whose name begins with _"
    assert contents.skipped == [folders.Skipped(folder / "_d/3.jpg", why)]


# HEIC


def check_without_pillow_heif(root: Path) -> subprocess.CompletedProcess:
    code = "import sys; sys.modules['pillow_heif'] = None; import train_office; train_office.main()"
    options = ["--dataset", "office31", "--root", str(root), "--task", "A2W", "--check"]
    paths = [str(Path(train_office.__file__).parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-c", code, *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_without_pillow_heif_heic_is_skipped_with_what_to_do(tree: Callable[..., Path]) -> None:
    root = tree(images=1)
    for name in ("mug/a.HEIC", "mug/b.heif", "mug/c", "mug/more/d.heic", ".e.heic"):
        (root / "amazon" / name).parent.mkdir(exist_ok=True)
        (root / "amazon" / name).write_bytes(HEIC)
    (root / "amazon/mug/b.heif").write_bytes(HEIC.replace(b"heic", b"avcs"))  # a rare kind of it
    done = check_without_pillow_heif(root)
    assert done.returncode == 0, done.stderr
    assert "pip install pillow-heif" in done.stderr  # at the start
    lines = done.stdout.splitlines()
    assert "6 of 11 files are read, 5 skipped" in lines
    for name in ("mug/a.HEIC", "mug/b.heif", "mug/c"):
        assert f"skipped: {root / 'amazon' / name} ({folders.NO_HEIF})" in lines
    (root / "webcam/mug/0.jpg").write_bytes(HEIC)  # as phones call it
    done = check_without_pillow_heif(root)
    assert done.returncode == 1
    assert f"webcam/mug/0.jpg: {folders.NO_HEIF}" in done.stdout


def test_with_pillow_heif_heic_is_read_under_any_name(folder: Path) -> None:
    pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install pillow-heif")
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :32, 0] = 255
    for name in ("a.HEIC", "b.hif", "c.jpg", "d"):
        Image.fromarray(pixels).save(folder / name, "HEIF", quality=95)
    assert len(folders.look(folder).images) == 5
    for name in ("a.HEIC", "b.hif", "c.jpg", "d"):
        image = np.asarray(images.load_image(folder / name)).astype(int)
        assert np.abs(image - pixels).mean() < 6
