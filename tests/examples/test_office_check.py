"""--check: the table, and what it says of unreadable, skipped and doubled images."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_tree
from office.console import UserError
from office.data.hashes import check_images
from office.data.tasks import Task, load_folders, load_task

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*published"),
    pytest.mark.filterwarnings("ignore:.*skipped"),
]
Capture = pytest.CaptureFixture[str]


def load(root: Path, name: str = "A2W", dataset: str = "office31") -> Task:
    return load_task(dataset, root, name)


def cells(lines: list[str]) -> list[list[str]]:
    return [line.split() for line in lines]


def test_the_table_counts_images_per_category(tree: Callable[..., Path], capsys: Capture) -> None:
    root = tree(images=2)
    (root / "amazon/mug/1.jpg").unlink()
    assert check_images([load(root, name) for name in ("A2W", "W2A")])
    assert capsys.readouterr().out.splitlines() == [
        "category  amazon  webcam  skipped",
        "bike           2       2        -",
        "mouse          2       2        -",
        "mug            1       2        -",
        "all            5       6        -",
        "11 of 11 images can be read",
    ]


def test_unreadable_images_are_reported_by_path(root: Path, capsys: Capture) -> None:
    broken = [root / "webcam/mouse/1.jpg", root / "webcam/mug/1.jpg"]
    for path in broken:
        os.truncate(path, path.stat().st_size // 2)
    assert not check_images([load(root)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3] == "16 of 18 images can be read"
    for line, path in zip(lines[-2:], broken, strict=True):
        assert line.startswith(f"cannot read the image {path}: ")


def test_skipped_files_are_counted_once_and_listed(root: Path, capsys: Capture) -> None:
    (root / "amazon/mug/notes.txt").write_text("text")
    (root / "amazon/mug/more").mkdir()
    shutil.copy(root / "amazon/mug/0.jpg", root / "amazon/mug/more/9.jpg")
    os.mkfifo(root / "webcam/mug/pipe.jpg")
    (root / "webcam/readme.md").write_text("text")
    assert check_images([load(root, name) for name in ("A2W", "W2A")])
    lines = capsys.readouterr().out.splitlines()
    assert cells(lines[3:6]) == [
        ["mug", "3", "3", "3"],
        ["no", "category", "-", "-", "1"],
        ["all", "9", "9", "4"],
    ]
    assert lines[6] == "18 of 18 images can be read, 4 files are skipped"
    assert lines[7:] == [
        f"skipped: {root / 'amazon/mug/notes.txt'} (not an image file)",
        f"skipped: {root / 'amazon/mug/more/9.jpg'} (in a folder inside a category's)",
        f"skipped: {root / 'webcam/readme.md'} (not an image file)",
        f"skipped: {root / 'webcam/mug/pipe.jpg'} (not an image file)",
    ]


def test_a_domain_may_be_a_source_in_full_and_a_target_in_part(
    tree: Callable[..., Path], capsys: Capture
) -> None:
    root = tree(categories=["bike", "desk", "mug"], images=2)
    (root / "webcam/mug/notes.txt").write_text("of both")
    assert check_images([load(root, name, "office31-partial") for name in ("A2W", "W2A")])
    head, *lines = capsys.readouterr().out.splitlines()
    columns = "category, amazon, webcam (10 categories), webcam, amazon (10 categories), skipped"
    assert re.split(r"  +", head) == columns.split(", ")
    assert cells(lines[:3]) == [
        ["bike", "2", "2", "2", "2", "-"],
        ["desk", "2", "-", "2", "-", "-"],
        ["mug", "2", "2", "2", "2", "1"],
    ]
    assert lines[4] == "12 of 12 images can be read, 1 files are skipped"


def test_a_target_without_labels_has_a_total_alone(root: Path, capsys: Capture) -> None:
    shutil.rmtree(root / "webcam/bike")
    assert check_images([load_folders(root / "amazon", root / "webcam", unlabelled=True)])
    lines = capsys.readouterr().out.splitlines()
    assert cells(lines[3:]) == [["mug", "3", "-", "-"], ["all", "9", "6", "-"], *cells(lines[5:])]


def test_folders_whose_parents_have_one_name_are_two_columns(
    tmp_path: Path, capsys: Capture
) -> None:
    for i, above in enumerate("ab"):
        write_tree(tmp_path / above / "x", domains=("y", "photos")[i:], images=3 + i)
    task = load_folders(tmp_path / "a/x/photos", tmp_path / "b/x/photos")
    assert task.name == "a-x-photos2b-x-photos"
    assert check_images([task])
    assert "21 of 21 images can be read" in capsys.readouterr().out


def test_copies_are_reported(root: Path, capsys: Capture) -> None:
    shutil.copy(root / "amazon/mug/0.jpg", root / "webcam/mug/9.jpg")
    with pytest.warns(UserWarning, match=r"images in both amazon and webcam: 1 of 9"):
        assert check_images([load(root)])
    shutil.rmtree(root / "webcam")
    shutil.copytree(root / "amazon", root / "webcam")
    (root / "webcam/mug/1.jpg").write_bytes(b"broken")
    (root / "amazon/mug/2.jpg").write_bytes(b"broken")
    with pytest.warns(UserWarning, match=r"images in both amazon and webcam: 8 of 9"):
        assert not check_images([load(root)])
    shutil.rmtree(root / "webcam/mug")
    shutil.copytree(root / "amazon/mug", root / "webcam/mug")
    (root / "amazon/mug/2.jpg").unlink()
    (root / "webcam/mug/2.jpg").unlink()
    with pytest.raises(UserError, match=r"webcam: 8 of 8 and 8 of 8, .* the same files"):
        check_images([load(root)])


def test_every_line_can_be_printed(tree: Callable[..., Path], capsys: Capture) -> None:
    root = tree(images=1)
    for domain in ("amazon", "webcam"):
        (root / domain / "mug").rename(root / domain / os.fsdecode(b"m\xfcg"))
        (root / domain / "bike" / os.fsdecode(b"n\xf6tes.txt")).write_text("text")
    (root / "amazon/bike" / os.fsdecode(b"br\xf6ken.jpg")).write_text("text")
    with pytest.warns(UserWarning, match="skipped") as caught:
        task = load(root)
    assert not check_images([task])
    out = capsys.readouterr().out + "".join(str(warning.message) for warning in caught)
    for name in (r"m\udcfcg ", r"n\udcf6tes.txt", r"br\udcf6ken.jpg"):
        assert name in out
    out.encode()
