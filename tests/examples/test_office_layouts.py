"""Lists of images, as people have them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from office.console import UserError
from office.data import datasets
from test_office_datasets import colours

pytestmark = pytest.mark.filterwarnings("ignore:.*published")


def test_categories_are_matched_by_the_lists_numbers(tree: Callable[..., Path]) -> None:
    root = tree("list", ["i", "p"], images=2)
    for domain in "ip":
        path = root / f"list/{domain}List.txt"
        lines = path.read_text().splitlines()
        # Numbers may start at 1, and lines come in any order.
        shifted = [f"{line.split()[0]} {int(line.split()[1]) + 1}" for line in lines]
        path.write_text("\n".join(shifted[::-1] if domain == "p" else shifted) + "\n\n")
    task = datasets.load_task("imageclef-da", root, "I2P")
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
        task = datasets.load_task("office31", root, "A2W")
    assert task.categories == ["bike", "mouse", "mug"]


@pytest.mark.parametrize(("first", "message"), [(1, "bike has the number 0 in amazon and 1 in")])
def test_lists_that_number_the_categories_differently_are_refused(
    tree: Callable[..., Path], first: int, message: str
) -> None:
    root = tree("image_list")
    path = root / "image_list/webcam.txt"
    lines = [line.split() for line in path.read_text().splitlines()]
    path.write_text("".join(f"{image} {int(label) + first}\n" for image, label in lines))
    with pytest.raises(UserError, match=message):
        datasets.load_task("office31", root, "A2W")
    path.write_text("".join(f"{image} {(int(label) + first) % 3}\n" for image, label in lines))
    with pytest.raises(UserError, match=message):
        datasets.load_task("office31", root, "A2W")


def test_lists_made_on_another_machine(tree: Callable[..., Path]) -> None:
    root = tree("image_list")
    (root / "amazon/images/bike/0.jpg").rename(root / "amazon/images/bike/a b.jpg")
    path = root / "image_list/amazon.txt"
    text = path.read_text().replace("bike/0.jpg", "bike/a b.jpg")
    path.write_text(text.replace("amazon/", "/home/someone/office/amazon/"))
    task = datasets.load_task("office31", root, "A2W")
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
    with pytest.raises(UserError, match=message):
        datasets.load_task("office31", root, "A2W")
