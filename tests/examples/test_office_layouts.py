"""Where a benchmark's domains are found, and lists of images as other systems write them."""

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_image, write_tree
from office.console import UserError
from office.data import images, layouts
from office.data.layouts import DATASETS
from office.data.tasks import Domain, Task, available_tasks, load_task
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore:.*published")
MANY = [f"c{i:02}" for i in range(65)]


def load(root: Path, dataset: str = "office31", name: str = "A2W") -> Task:
    return load_task(dataset, root, name)


def colours(domain: Domain) -> dict[int, np.ndarray]:
    """Mean colour of the images of each label: the trees give each category its own."""
    means: dict[int, list] = {}
    for path, label in zip(domain.paths, domain.labels or [], strict=True):
        means.setdefault(label, []).append(np.asarray(Image.open(path)).mean((0, 1)))
    return {label: np.mean(values, 0) for label, values in means.items()}


def assert_same_categories(task: Task) -> None:
    source, target = colours(task.source), colours(task.target)
    assert source.keys() == target.keys()
    for label in source:
        assert np.abs(source[label] - target[label]).max() < 8


# Layouts


@pytest.mark.parametrize("dataset", [name for name in DATASETS if "partial" not in name])
@pytest.mark.parametrize("layout", ["folders", "archive", "image_list", "list"])
def test_every_task_loads_in_every_layout(
    tree: Callable[..., Path], dataset: str, layout: str
) -> None:
    parts, names = DATASETS[dataset].domains, DATASETS[dataset].tasks
    root = tree(layout, [part.name for part in parts.values()], images=2)
    assert available_tasks(dataset, root) == names
    for name in names:
        task = load(root, dataset, name)
        source, target = name.split("2")
        assert task.name == name
        assert (task.source.name, task.target.name) == (parts[source].name, parts[target].name)
        numbers = layout == "list"
        assert task.categories == (["0", "1", "2"] if numbers else ["bike", "mouse", "mug"])
        for domain in (task.source, task.target):
            assert domain.labels == [0, 0, 1, 1, 2, 2]
            assert all(domain.name in path.parts for path in domain.paths)
            assert len(set(domain.paths)) == 6
        assert_same_categories(task)


@pytest.mark.parametrize("folder", ["Real World", "RealWorld", "Real_World", "real-world"])
def test_spellings_of_a_folder_name(tree: Callable[..., Path], folder: str) -> None:
    task = load(tree("folders", ["ART", folder]), "office-home", "Ar2Rw")
    assert (len(task.source.paths), len(task.target.paths)) == (12, 12)
    assert folder in task.target.paths[0].parts
    task = load(tree("image_list", ["Art", folder], name="lists"), "office-home", "Ar2Rw")
    assert len(task.target.paths) == 12


def test_archives_that_unpack_into_a_folder_of_their_own(tree: Callable[..., Path]) -> None:
    for layout in ("archive", "image_list"):
        assert len(load(tree(layout, name=f"{layout}/unpacked").parent).source.paths) == 12


def test_links_are_followed(root: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    (linked / "webcam/mug").mkdir(parents=True)
    (linked / "amazon").symlink_to(root / "amazon")
    for name in ("bike", "mouse", "mug/0.jpg"):
        (linked / "webcam" / name).symlink_to(root / "webcam" / name)
    task = load(linked)
    assert (len(task.source.paths), len(task.target.paths)) == (9, 7)
    (root / "webcam/mug/0.jpg").unlink()
    with pytest.raises(UserError, match=r"webcam/mug/0\.jpg"):
        images.load_image(load(linked).target.paths[-1])


def test_only_the_tasks_domains_are_needed(root: Path) -> None:
    assert available_tasks("office-caltech10", root) == ["A2W", "W2A"]
    with pytest.raises(UserError, match="caltech10 not found"):
        load(root, "office-caltech10", "A2C")


@pytest.mark.filterwarnings("ignore:.*skipped")
def test_other_files_and_folders_are_skipped_with_the_reason(tree: Callable[..., Path]) -> None:
    root = tree("archive", images=1)
    photo = root / "amazon/images/mug/0.jpg"
    for name in ("images/mug/more/deep/1.jpg", "images/mug/x.jpg/2.jpg", "images/_old/3.jpg"):
        (root / "amazon" / name).parent.mkdir(parents=True)
        shutil.copy(photo, root / "amazon" / name)
    shutil.copy(photo, root / "amazon/images/4.jpg")
    (root / "amazon/points").mkdir()
    (root / "amazon/points/a.mat").write_bytes(b"MATLAB")
    (root / "amazon/images/classes.txt").write_text("mug")
    (root / "amazon/images/mug/Thumbs.db").write_text("left behind")
    (root / "amazon/images/bike/round").symlink_to(root / "amazon/images/bike")
    task = load(root)
    assert len(task.source.paths) == 3
    reasons = {(item.path.name, item.category): item.why for item in task.source.skipped}
    assert reasons == {
        ("0.jpg", "bike"): "in a folder inside a category's",  # of the link to itself, once
        ("1.jpg", "mug"): "in a folder inside a category's",
        ("2.jpg", "mug"): "in a folder inside a category's",
        ("3.jpg", None): "in a folder whose name begins with _",
        ("4.jpg", None): "outside category folders",
        ("classes.txt", None): "not an image file",
        ("a.mat", None): "in a folder beside images",
    }
    assert len(task.source.skipped) == len(reasons)
    assert task.target.skipped == []


@pytest.mark.parametrize("root", [None, Path("no/such/folder")])
def test_a_missing_root_is_explained(root: Path | None) -> None:
    with pytest.raises(UserError) as caught:
        load_task("office-home", root, "Ar2Rw")
    message = str(caught.value)
    assert "Art and Real World not found" in message
    assert ("no/such/folder is not a folder" if root else "--root is not given") in message
    for line in ("Art/<category>/*.jpg", "image_list/Art.txt", "hemanthdv.org", "train_digits.py"):
        assert line in message


# One folder of several


def test_a_root_of_several_benchmarks_is_refused_if_the_first_is_another(tmp_path: Path) -> None:
    write_tree(tmp_path / "a_caltech", categories=MANY[:10], images=1)
    write_tree(tmp_path / "b_office31", "archive", categories=MANY[:31], images=1)
    assert len(load(tmp_path, "office-caltech10").categories) == 10
    with pytest.raises(UserError, match=r"office31 has 31 categories, .* set --root"):
        load(tmp_path)
    assert len(load(tmp_path / "b_office31").categories) == 31


def test_both_domains_are_of_one_folder_perhaps_two_deeper(tmp_path: Path) -> None:
    write_tree(tmp_path / "alone", domains=("webcam",), images=1)
    write_tree(tmp_path / "sets/office31", "archive", categories=MANY[:31], images=1)
    task = load(tmp_path)
    paths = [*task.source.paths, *task.target.paths]
    assert {path.relative_to(tmp_path).parts[:2] for path in paths} == {("sets", "office31")}


@pytest.mark.filterwarnings("ignore:.*skipped")
def test_a_domain_is_not_searched_for_domains(tmp_path: Path) -> None:
    write_tree(tmp_path, categories=MANY[:3], images=1)
    write_tree(tmp_path / "amazon/c00", categories=MANY[:31], images=1)
    assert len(load(tmp_path).categories) == 3


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_folder_beside_them_that_cannot_be_read_is_passed_over(root: Path) -> None:
    (root / "private").mkdir(mode=0)
    assert len(load(root).source.paths) == 9


@pytest.mark.filterwarnings("ignore:.*skipped")
def test_in_one_folder_lists_win_over_folders_however_few_they_name(
    tree: Callable[..., Path],
) -> None:
    root = tree("image_list", images=2)
    for domain in ("amazon", "webcam"):
        path = root / f"image_list/{domain}.txt"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))
    assert len(load(root).source.paths) == 4


# Categories in lists


def test_categories_are_matched_by_the_lists_numbers(tree: Callable[..., Path]) -> None:
    root = tree("list", ["i", "p"], images=2)
    for domain in "ip":
        path = root / f"list/{domain}List.txt"
        lines = path.read_text().splitlines()
        # Numbers may start at 1, and lines come in any order.
        shifted = [f"{line.split()[0]} {int(line.split()[1]) + 1}" for line in lines]
        path.write_text("\n".join(shifted[::-1] if domain == "p" else shifted) + "\n\n")
    task = load(root, "imageclef-da", "I2P")
    assert task.categories == ["1", "2", "3"]
    assert task.target.labels == [0, 0, 1, 1, 2, 2]
    assert_same_categories(task)


def test_lists_that_number_the_categories_differently_are_matched_by_name(
    tree: Callable[..., Path],
) -> None:
    root = tree("image_list")
    path = root / "image_list/webcam.txt"
    lines = [line.split() for line in path.read_text().splitlines()]
    path.write_text("".join(f"{image} {(int(label) + 1) % 3}\n" for image, label in lines))
    task = load(root)
    assert task.categories == ["bike", "mouse", "mug"]
    assert_same_categories(task)


def test_other_names_in_one_list_are_other_categories(tree: Callable[..., Path]) -> None:
    root = tree("image_list")
    (root / "webcam/images/mug").rename(root / "webcam/images/cup")
    path = root / "image_list/webcam.txt"
    path.write_text(path.read_text().replace("/mug/", "/cup/"))
    with pytest.raises(UserError, match="missing in amazon: cup; missing in webcam: mug"):
        load(root)


def test_two_normalisations_of_a_folders_name_are_one_category(tree: Callable[..., Path]) -> None:
    root = tree("image_list", images=1)
    for form, domain in (("NFC", "amazon"), ("NFD", "webcam")):
        name = unicodedata.normalize(form, "caf\u00e9")
        (root / domain / "images/mug").rename(root / domain / "images" / name)
        path = root / f"image_list/{domain}.txt"
        path.write_text(path.read_text().replace("/mug/", f"/{name}/"))
    assert load(root).categories == ["bike", "mouse", "caf\u00e9"]  # and no warning


# Lines of lists


@pytest.fixture
def lists(tree: Callable[..., Path]) -> Path:
    return tree("image_list", images=2)


def read(root: Path, content: bytes | str) -> dict[str, list[Path]]:
    """Read this as amazon's list."""
    path = root / "image_list/amazon.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return layouts.read_list(path, root).images


def original(root: Path) -> str:
    return (root / "image_list/amazon.txt").read_text()


@pytest.mark.parametrize(
    "change",
    [
        lambda path, label: f"  {path} \t {label}  ",
        lambda path, label: f"{path} 0{label}\n",
        lambda path, label: f"\ufeff{path} {label}" if "bike/0" in path else f"{path} {label}\r",
    ],
)
def test_other_ways_to_write_a_line(lists: Path, change: Callable[[str, str], str]) -> None:
    image = lists / "amazon/images/mug/0.jpg"
    image.rename(image.with_name("caf\u00e9 1.jpg"))
    text = original(lists).replace("mug/0", "mug/caf\u00e9 1")
    expected = read(lists, text)
    lines = (line.rsplit(maxsplit=1) for line in text.splitlines())
    assert read(lists, "\n".join(change(*line) for line in lines)) == expected


def test_bytes_that_are_not_utf8_are_those_of_the_name(lists: Path) -> None:
    image = lists / "amazon/images/mug/0.jpg"
    odd = image.rename(image.with_name(os.fsdecode(b"caf\xe9.jpg")))
    assert odd in read(lists, original(lists).encode().replace(b"mug/0", b"mug/caf\xe9"))["mug"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("amazon/images/bike/0.jpg", "line 7: expected 'path label' with a number as label"),
        ("amazon/images/bike/0.jpg bike", "line 7: expected"),
        ("amazon/images/bike/0.jpg -1", "line 7: expected"),
        ("amazon/images/bike/0.jpg 1.0", "line 7: expected"),
        ("amazon/images/bike/0.jpg \uff11", r"line 7: expected .*\\uff11"),
        ("amazon/images/bike/0.jpg " + "9" * 5000, "line 7: expected"),
        ("0", "line 7: expected"),
        (". 0", "line 7: no such image"),
        ("amazon/images/bike 0", "line 7: no such image"),
        ("a\0b 0", r"line 7: no such image .*a\\x00b"),
        ("caf\u200b\u00e9.jpg 0", r"line 7: no such image .*caf\\u200b"),
        ("x" * 5000 + " 0", "line 7: no such image"),
        ("amazon/images/bike/0.jpg 2", r"line 7: .*bike/0.jpg already has label 0"),
    ],
)
def test_what_is_wrong_with_a_line_is_visible(lists: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(lists, original(lists) + line + "\n")
    assert "\0" not in str(caught.value)


def test_an_empty_list_is_named(lists: Path) -> None:
    with pytest.raises(UserError, match=r"the list is empty: .*amazon\.txt"):
        read(lists, "\n")


def test_a_repeated_line_counts_once(lists: Path) -> None:
    expected, text = read(lists, original(lists)), original(lists)
    assert read(lists, text + "\n".join(text.splitlines()[:2])) == expected


def test_images_that_no_line_names_are_skipped_and_reported(lists: Path) -> None:
    write_image(lists / "amazon/images/mug/9.jpg", 2, 9)
    with pytest.warns(UserWarning, match=r"amazon: 1 skipped: 9\.jpg \(not in amazon\.txt\)"):
        task = load(lists)
    assert len(task.source.paths) == 6
