"""Domains that cannot be right together, and those that can."""

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_image, write_tree
from office.console import UserError
from office.data import benchmarks, datasets, overlap

pytestmark = pytest.mark.filterwarnings("ignore:.*published")
MANY = [f"c{i:02}" for i in range(65)]


def load(root: Path, dataset: str = "office31", name: str = "A2W") -> datasets.Task:
    return datasets.load_task(dataset, root, name)


# One category


@pytest.mark.filterwarnings("ignore:category 0 is")
def test_one_category_is_refused_in_every_layout(tree: Callable[..., Path]) -> None:
    for layout in ("folders", "archive", "image_list", "list"):
        root = tree(layout, categories=["mug"], name=layout)
        with pytest.raises(UserError, match=r"has a single category, \w+, so every prediction"):
            load(root)


def test_flat_folders_on_both_sides_are_refused(tmp_path: Path) -> None:
    for side in ("photos", "sketches"):
        for i in range(3):
            write_image(tmp_path / side / f"{i}.jpg", 0, i + 10 * len(side))
    with pytest.raises(UserError, match="images outside category folders"):
        datasets.load_folders(tmp_path / "photos", tmp_path / "sketches")
    for side in ("photos", "sketches"):  # with the folders that systems leave in them
        (tmp_path / side / "@eaDir").mkdir()
        shutil.copy(tmp_path / side / "0.jpg", tmp_path / side / "@eaDir")
    with pytest.raises(UserError, match="images outside category folders"):
        datasets.load_folders(tmp_path / "photos", tmp_path / "sketches")
    for side in ("photos", "sketches"):
        (tmp_path / side).rename(tmp_path / f"{side}-images")
        (tmp_path / side).mkdir()
        (tmp_path / f"{side}-images").rename(tmp_path / side / "images")
    with pytest.raises(UserError, match="has a single category, images, so every prediction"):
        datasets.load_folders(tmp_path / "photos", tmp_path / "sketches")


# The same images


def emptied(root: Path, domain: str) -> list[Path]:
    """The paths of a domain's images, which are no longer there."""
    paths = sorted((root / domain).rglob("*.jpg"))
    for path in paths:
        path.unlink()
    return paths


@pytest.mark.parametrize("link", [os.symlink, os.link, shutil.copy])
@pytest.mark.parametrize("part", [1, 3])
def test_images_of_both_domains(root: Path, link: Callable, part: int) -> None:
    paths = sorted((root / "webcam").rglob("*.jpg"))[:part]
    for path in paths:
        path.unlink()
        link(root / "amazon" / path.relative_to(root / "webcam"), path)
    images = "image is" if part == 1 else "images are"
    with pytest.warns(UserWarning, match=f"{part} {images} in both amazon and webcam, for .*0.jpg"):
        load(root)


@pytest.mark.parametrize("link", [os.symlink, os.link, shutil.copy])
def test_a_target_within_the_source_is_refused(root: Path, link: Callable) -> None:
    for path in emptied(root, "webcam"):
        link(root / "amazon" / path.relative_to(root / "webcam"), path)
    write_image(root / "amazon/mug/9.jpg", 2, 9)
    with pytest.raises(UserError, match="same images: 9 of 10 and 9 of 9 files"):
        load(root)
    with pytest.raises(UserError, match="same images: 9 of 9 and 9 of 10 files"):
        load(root, name="W2A")


def test_the_same_folder_by_another_way_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(root / "amazon")
    with pytest.raises(UserError, match="same folder"):
        datasets.load_folders(root / "amazon", tmp_path / "other")
    shutil.copytree(root / "amazon", tmp_path / "copy")
    with pytest.raises(UserError, match="same images: 9 of 9 and 9 of 9 files"):
        datasets.load_folders(root / "amazon", tmp_path / "copy")
    with pytest.raises(UserError, match="same images: 3 of 9 and 3 of 3 files"):
        datasets.load_folders(root / "amazon", root / "amazon/mug")  # unlabelled


@pytest.mark.parametrize("link", [os.symlink, os.link, shutil.copy])
def test_an_image_in_two_categories_is_told(root: Path, link: Callable) -> None:
    link(root / "webcam/mug/1.jpg", root / "webcam/bike/9.jpg")
    link(root / "webcam/mug/1.jpg", root / "webcam/bike/8.jpg")  # twice in one is not
    told = r"1 image is in two categories of webcam, for example .*bike/8.jpg is .*mug/1.jpg"
    with pytest.warns(UserWarning, match=told):
        load(root)


def test_an_image_that_cannot_be_read_is_left_to_the_check(root: Path, monkeypatch) -> None:
    path = root / "amazon/mug/0.jpg"
    monkeypatch.setattr(os, "access", lambda given, mode: given != path)
    paths = [path, root / "amazon/mug/1.jpg"]
    assert overlap.shared(paths, paths) == [(paths[1], paths[1])]


def test_files_of_one_size_are_told_apart_by_their_content(tmp_path: Path) -> None:
    names = [tmp_path / f"{i}.bmp" for i in range(6)]
    for i, path in enumerate(names):  # alike but for the last byte, far from the middle
        path.write_bytes(bytes(20000) + bytes([i % 5]))
    assert overlap.shared(names[:3], names[3:]) == [(names[0], names[5])]
    assert overlap.shared(names[:2], names[3:5]) == []
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    assert overlap.shared([tmp_path / "gone.jpg"], [tmp_path / "gone.jpg"]) == []


# Another benchmark's folder


def test_the_folder_whose_counts_fit_is_taken(tmp_path: Path, monkeypatch) -> None:
    for name, domains, k, images in (
        ("a_home", ("amazon", "webcam", "dslr"), 65, 1),
        ("b_part", ("amazon", "webcam"), 31, 1),
        ("c_office31", ("amazon", "webcam", "dslr"), 31, 1),
        ("d_caltech", ("amazon", "webcam", "dslr", "caltech10"), 10, 3),
        ("e_half", ("amazon", "webcam", "dslr", "caltech10"), 10, 1),
    ):
        write_tree(tmp_path / name, domains=domains, categories=MANY[:k], images=images)
    for dataset, tasks, folder in (
        ("office31", ("A2W", "D2A"), "c_office31"),
        ("office-caltech10", ("A2W", "C2D"), "d_caltech"),
    ):
        for name in tasks:
            task = load(tmp_path, dataset, name)
            assert {p.relative_to(tmp_path).parts[0] for p in task.source.paths} == {folder}
            assert {p.relative_to(tmp_path).parts[0] for p in task.target.paths} == {folder}


def test_the_folder_that_fits_may_lie_two_folders_deeper(tmp_path: Path) -> None:
    write_tree(tmp_path / "sets/office31_part", categories=MANY[:3], images=2)
    write_tree(tmp_path / "sets/office31", "archive", categories=MANY[:31], images=1)
    write_tree(tmp_path / "office-home", domains=("Art", "Product"), images=1)
    task = load(tmp_path)
    assert {path.relative_to(tmp_path).parts[1] for path in task.source.paths} == {"office31"}
    assert len(task.categories) == 31


@pytest.mark.filterwarnings("ignore:.*skipped")
def test_a_domain_is_not_searched_for_domains(tmp_path: Path) -> None:
    write_tree(tmp_path, categories=MANY[:3], images=1)
    write_tree(tmp_path / "amazon/c00", categories=MANY[:31], images=1)
    assert len(load(tmp_path).categories) == 3


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_folder_beside_them_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    root = write_tree(tmp_path, images=1)
    (root / "private").mkdir(mode=0)
    assert len(load(root).source.paths) == 3


def test_of_two_names_for_a_domain_the_one_that_fits_is_taken(tmp_path: Path) -> None:
    write_tree(tmp_path, domains=("amazon", "caltech10"), categories=MANY[:10], images=1)
    write_tree(tmp_path, domains=("caltech256",), categories=MANY[:40], images=2)
    write_tree(tmp_path, domains=("caltech",), categories=MANY[:4], images=2)
    task = load(tmp_path, "office-caltech10", "A2C")
    assert {path.parts[-3] for path in task.target.paths} == {"caltech10"}


@pytest.mark.parametrize("k", [11, 31, 40])
def test_more_categories_than_published_are_refused(tmp_path: Path, k: int) -> None:
    write_tree(tmp_path, categories=MANY[:k], images=1)
    of = "those of office31, 31" if k == 31 else f"{k}"
    with pytest.raises(UserError, match=f"has 10 categories, but .*amazon has {of}; set --root"):
        load(tmp_path, "office-caltech10")


def test_fewer_categories_are_refused_where_another_benchmark_has_just_these(
    tmp_path: Path, monkeypatch
) -> None:
    write_tree(tmp_path, categories=MANY[:10], images=1)
    assert len(load(tmp_path).categories) == 10
    known = benchmarks.DATASETS["office-caltech10"]
    small = {name: part._replace(images=10) for name, part in known.domains.items()}
    monkeypatch.setitem(known.domains, "A", small["A"])
    monkeypatch.setitem(known.domains, "W", small["W"])
    with pytest.raises(
        UserError, match=r"office31 has 31 categories, .* those of office-caltech10"
    ):
        load(tmp_path)


# Categories that differ


def test_a_target_with_fewer_categories_names_partial(root: Path) -> None:
    shutil.rmtree(root / "webcam/mug")
    shutil.rmtree(root / "webcam/bike")
    write_image(root / "webcam/cup/0.jpg", 3, 0)
    with pytest.raises(UserError, match="missing in amazon: cup; missing in webcam: bike, mug"):
        load(root)
    shutil.rmtree(root / "webcam/cup")
    works = "If webcam is meant to have only some of amazon's categories .*, add --partial$"
    with pytest.raises(UserError, match=works):
        load(root)
    for category in ("bike", "mug"):
        shutil.rmtree(root / "amazon" / category)
    write_tree(root, categories=["cup"])
    assert load(root).categories == ["cup", "mouse"]


@pytest.mark.parametrize("layout", ["folders", "archive", "image_list"])
def test_a_partial_target_lacks_categories_and_adds_none(
    tree: Callable[..., Path], layout: str
) -> None:
    root = tree(layout, images=2)
    for path in [*root.glob("webcam/mouse/*.jpg"), *root.glob("webcam/images/mouse/*.jpg")]:
        path.unlink()
        path.parent.rmdir() if not any(path.parent.iterdir()) else None
    if layout == "image_list":
        path = root / "image_list/webcam.txt"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if "mouse" not in line))
    task = datasets.load_task("office31", root, "A2W", partial=True)
    assert task.categories == ["bike", "mouse", "mug"]
    assert task.source.labels == [0, 0, 1, 1, 2, 2]
    assert task.target.labels == [0, 0, 2, 2]
    assert [path.parent.name for path in task.target.paths] == ["bike"] * 2 + ["mug"] * 2
    assert task.lacking == ["mouse"]
    with pytest.raises(UserError, match="missing in webcam: mouse"):  # the source must have all
        datasets.load_task("office31", root, "W2A", partial=True)


def test_two_folders_may_be_partial(root: Path) -> None:
    shutil.rmtree(root / "webcam/mouse")
    with pytest.raises(
        UserError,
        match=r"missing in webcam: mouse.*\n.*add --partial; if .* add --unlabelled$",
    ):
        datasets.load_folders(root / "amazon", root / "webcam")
    task = datasets.load_folders(root / "amazon", root / "webcam", partial=True)
    assert task.target.labels == [0] * 3 + [2] * 3
    assert len(task.categories) == 3
    write_image(root / "webcam/cup/0.jpg", 3, 0)
    with pytest.raises(UserError, match="missing in amazon: cup; missing in webcam: mouse"):
        datasets.load_folders(root / "amazon", root / "webcam", partial=True)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("mug ", r"'mug '"),
        ("mug\u200b", r"mug\\u200b"),
        ("m\u00a0ug", r"m\\xa0ug"),
        ("\u043cug", r"\('\\u043cug'\)"),
        ("mu\u0261", r"\('mu\\u0261'\)"),
        (os.fsdecode(b"mug\xe9"), r"mug\\udce9"),
        ("Mug", "missing in amazon: Mug; missing in webcam: mug"),
    ],
)
def test_a_difference_that_one_may_not_see_is_shown(root: Path, name: str, shown: str) -> None:
    (root / "webcam/mug").rename(root / "webcam" / name)
    with pytest.raises(UserError, match=shown) as caught:
        load(root)
    str(caught.value).encode()  # no bytes that cannot be printed


def test_two_normalisations_in_one_domain_are_one_category(root: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    for domain in ("amazon", "webcam"):
        (root / domain / "bike").rename(root / domain / composed)
        (root / domain / "mug").rename(root / domain / decomposed)
    task = load(root)
    assert task.categories == [composed, "mouse"]
    assert task.source.labels == task.target.labels == [0] * 6 + [1] * 3


def test_names_in_two_normalisations_are_one_in_lists_too(tree: Callable[..., Path]) -> None:
    root = tree("image_list", images=1)
    for form, domain in (("NFC", "amazon"), ("NFD", "webcam")):
        name = unicodedata.normalize(form, "caf\u00e9")
        (root / domain / "images/mug").rename(root / domain / "images" / name)
        path = root / f"image_list/{domain}.txt"
        path.write_text(path.read_text().replace("/mug/", f"/{name}/"))
    assert load(root).categories == ["bike", "mouse", "caf\u00e9"]  # and no warning
