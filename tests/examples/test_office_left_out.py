"""What is in a folder beside images: nothing is dropped in silence."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from office.console import UserError
from office.data import datasets, formats, images, listing
from PIL import Image

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*published"),
    pytest.mark.filterwarnings("ignore:.*skipped"),
]
HEIC = b"\0\0\0\x18ftypheic" + bytes(64)
SCRIPT = Path(datasets.__file__).parents[1] / "train_office.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mug").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "mug/0.jpg")
    return tmp_path / "mug"


def reasons(folder: Path) -> dict[str, str]:
    return {item.path.name: item.why for item in listing.look(folder).left_out}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[(f"a.{end}", "JPEG") for end in ("JPG", "jpe", "jfif", "jpg_large", "bak", "txt", "h5")],
        *[
            ("b.apng", "PNG"),
            ("b", "PNG"),
            ("b.dib", "DIB"),
            ("b.tga", "TGA"),
            ("b.jp2", "JPEG2000"),
        ],
        *[("c.ico", "ICO"), ("c.pnm", "PPM"), ("c.pcx", "PCX"), ("c.sgi", "SGI"), ("c.mpo", "MPO")],
    ],
)
def test_pillow_decides_whatever_the_ending(folder: Path, name: str, kind: str) -> None:
    Image.new("RGB", (32, 32), (200, 30, 30)).save(folder / name, kind)
    found = listing.look(folder)
    assert [path.name for path in found.images] == sorted(["0.jpg", name])
    assert found.left_out == []
    assert np.abs(np.asarray(images.load_image(folder / name)) - [200.0, 30, 30]).max() < 6


NO_IMAGES = {
    "notes.txt": b"0 0.5 0.5 0.2 0.2\n",
    "list.txt": b"P5 is a plan\n",
    "car.txt": b"BMW, red\n",
    "boxes.xml": b"<?xml version='1.0'?><a/>",
    "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "features.h5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "film.mpg": b"\0\0\1\xb3\x16\0\xf0\xc4" + bytes(64),
    "drawing.wmf": b"\xd7\xcd\xc6\x9a\0\0" + bytes(64),
    "font.ttf": b"\0\1\0\0\0\x0c" + bytes(64),
    "zeros.bin": bytes(4096),
    "array.npy": b"\x93NUMPY\1\0v\0{'descr': '<f4'}" + np.ones(512, "f4").tobytes(),
    "paper.pdf": b"%PDF-1.4\n",
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_left_out(folder: Path, name: str) -> None:
    (folder / name).write_bytes(NO_IMAGES[name])
    assert reasons(folder) == {name: "not an image that Pillow can open"}


def test_files_that_cannot_be_read_are_left_out_with_the_reason(folder: Path) -> None:
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
        "photo.dng": formats.RAW,
        "photo.NEF": formats.RAW,
    }
    with pytest.raises(UserError, match="not a regular file"):
        images.load_image(folder / "pipe.jpg")


@pytest.mark.parametrize("name", ["gone.jpg", "empty.jpg", "text.jpeg"])
def test_a_broken_image_is_not_left_out_but_named_when_read(folder: Path, name: str) -> None:
    (folder / "empty.jpg").touch()
    (folder / "text.jpeg").write_text("no image")
    (folder / "gone.jpg").symlink_to("nowhere")
    assert folder / name in listing.look(folder).images
    with pytest.raises(UserError, match=f"cannot read the image .*{name}"):
        images.load_image(folder / name)


LEFT_BEHIND = [
    *(".DS_Store", "._0.jpg", ".directory", ".nomedia", ".picasa.ini", ".gitkeep", ".nfs0001"),
    *("Thumbs.db", "ehthumbs.db", "Desktop.ini", "Icon\r", "~$list.xlsx", "0.jpg:Zone.Identifier"),
    *("0.jpg@SynoEAStream", "@eaDir/0.jpg@SynoEAStream", "@eaDir/0.jpg/info", "@tmp/x"),
    *("__MACOSX/mug/._0.jpg", ".ipynb_checkpoints/a.ipynb", ".thumbnails/x", ".git/HEAD"),
    *("#recycle/x", ".Trash-1000/x", "$RECYCLE.BIN/desktop.ini", "System Volume Information/x"),
]


@pytest.mark.parametrize("name", LEFT_BEHIND)
def test_leftovers_are_told_of_only_if_they_hold_an_image(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    found = listing.look(folder)
    assert [path.name for path in found.images] == ["0.jpg"]
    assert found.folders == found.left_out == []
    shutil.copy(folder / "0.jpg", path)
    (told,) = listing.look(folder).left_out
    assert told.path == path
    assert "hidden" in told.why


def test_an_image_that_icloud_has_not_loaded_is_told_of(folder: Path) -> None:
    (folder / ".1.jpg.icloud").write_bytes(b"bplist00")
    assert reasons(folder) == {".1.jpg.icloud": "not downloaded from iCloud"}


def test_folders_that_are_no_categories_are_told_of(tree: Callable[..., Path]) -> None:
    root = tree("archive", images=1)
    photo = root / "amazon/images/mug/0.jpg"
    for name in ("images/mug/more/deep/1.jpg", "images/mug/x.jpg/2.jpg", "images/_old/3.jpg"):
        (root / "amazon" / name).parent.mkdir(parents=True)
        shutil.copy(photo, root / "amazon" / name)
    (root / "amazon/points").mkdir()
    (root / "amazon/points/a.mat").write_bytes(b"MATLAB")
    (root / "amazon/images/classes.txt").write_text("mug")
    task = datasets.load_task("office31", root, "A2W")
    assert len(task.source.paths) == 3
    assert {(item.path.name, item.category): item.why for item in task.source.left_out} == {
        ("1.jpg", "mug"): "in a folder inside a category's",
        ("2.jpg", "mug"): "in a folder inside a category's",
        ("3.jpg", None): "in a folder whose name begins with _",
        ("classes.txt", None): "not an image that Pillow can open",
        ("a.mat", None): "in a folder beside images",
    }
    assert task.target.left_out == []


def test_a_link_to_a_folder_that_it_is_in_ends(tree: Callable[..., Path]) -> None:
    root = tree(images=1)
    (root / "amazon/mug/round").symlink_to(root / "amazon/mug")
    (told,) = datasets.load_task("office31", root, "A2W").source.left_out
    assert told.path == root / "amazon/mug/round/0.jpg"


def test_a_flat_target_with_a_systems_folder_is_flat(tree: Callable[..., Path]) -> None:
    root = tree(images=2)
    for name in ("@eaDir", "__MACOSX", ".ipynb_checkpoints"):
        (root / "webcam/mug" / name).mkdir()
    (root / "webcam/mug/notes.csv").write_text("a,b")
    task = datasets.load_folders(root / "amazon", root / "webcam/mug")
    assert task.target.labels is None
    assert len(task.target.paths) == 2
    assert [item.path.name for item in task.target.left_out] == ["notes.csv"]


def test_check_counts_each_file_once(tree: Callable[..., Path], capsys) -> None:
    root = tree(images=2)
    (root / "amazon/mug/notes.txt").write_text("text")
    (root / "webcam/mug/notes.txt").write_text("text")
    (root / "webcam/readme.md").write_text("text")
    tasks = [datasets.load_task("office31", root, name) for name in ("A2W", "W2A")]
    assert datasets.check(tasks)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[3:6]] == [
        ["mug", "2", "2", "2"],
        ["no", "category", "-", "-", "1"],
        ["all", "6", "6", "3"],
    ]
    assert lines[6] == "12 of 15 files are read, 3 skipped"
    assert lines[7:] == [
        f"skipped: {root / name} (not an image that Pillow can open)"
        for name in ("amazon/mug/notes.txt", "webcam/readme.md", "webcam/mug/notes.txt")
    ]


def test_check_tells_of_pictures_behind_the_first(tree: Callable[..., Path], capsys) -> None:
    root = tree(images=1)
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    for name in ("1.tiff", "2.gif"):
        red.save(root / "amazon/mug" / name, save_all=True, append_images=[blue])
        assert np.asarray(images.load_image(root / "amazon/mug" / name))[0, 0].tolist() == [
            255,
            0,
            0,
        ]
    red.save(root / "amazon/mug/3.jpg", "MPO", save_all=True, append_images=[blue])  # a phone's
    assert datasets.check([datasets.load_task("office31", root, "A2W")])
    told = f"only the first picture is read in 2 multi-picture files: {root}/amazon/mug/1.tiff ..."
    assert told in capsys.readouterr().out.splitlines()


def check_without_pillow_heif(root: Path, *before: str) -> subprocess.CompletedProcess:
    code = "import sys; sys.modules['pillow_heif'] = None; import train_office; train_office.main()"
    options = ["--dataset", "office31", "--root", str(root), "--task", "A2W", *before]
    env = {
        **os.environ,
        "PYTHONPATH": str(SCRIPT.parent) + os.pathsep + os.environ.get("PYTHONPATH", ""),
    }
    return subprocess.run(
        [sys.executable, "-c", code, *options], env=env, capture_output=True, text=True
    )


def test_without_pillow_heif_heic_is_left_out_with_what_to_do(tree: Callable[..., Path]) -> None:
    root = tree(images=1)
    for name in ("mug/a.HEIC", "mug/b.heif", "mug/c", "mug/more/d.heic", ".e.heic"):
        (root / "amazon" / name).parent.mkdir(exist_ok=True)
        (root / "amazon" / name).write_bytes(HEIC)
    (root / "amazon/mug/b.heif").write_bytes(HEIC.replace(b"heic", b"avcs"))  # a rare kind of it
    done = check_without_pillow_heif(root, "--check")
    assert done.returncode == 0, done.stderr
    assert "pip install pillow-heif" in done.stderr  # at the start
    lines = done.stdout.splitlines()
    assert "6 of 11 files are read, 5 skipped" in lines
    for name in ("mug/a.HEIC", "mug/b.heif", "mug/c"):
        assert f"skipped: {root / 'amazon' / name} ({formats.NO_HEIF})" in lines
    (root / "webcam/mug/0.jpg").write_bytes(HEIC)  # as phones call it
    done = check_without_pillow_heif(root, "--check")
    assert done.returncode == 1
    assert f"webcam/mug/0.jpg: {formats.NO_HEIF}" in done.stdout


def test_with_pillow_heif_heic_is_read_under_any_name(folder: Path) -> None:
    pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install pillow-heif")
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :32, 0] = 255
    for name in ("a.HEIC", "b.hif", "c.jpg", "d"):
        Image.fromarray(pixels).save(folder / name, "HEIF", quality=95)
    assert len(listing.look(folder).images) == 5
    for name in ("a.HEIC", "b.hif", "c.jpg", "d"):
        image = np.asarray(images.load_image(folder / name)).astype(int)
        assert np.abs(image - pixels).mean() < 6
