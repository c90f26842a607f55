"""Two domains that make a task, and those that cannot be right together."""

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_image, write_tree
from office.console import UserError
from office.data.hashes import Content, hash_files, warn_about_copies
from office.data.tasks import Task, load_folders, load_task

pytestmark = pytest.mark.filterwarnings("ignore:.*published")
MANY = [f"c{i:02}" for i in range(65)]


def load(root: Path, dataset: str = "office31", name: str = "A2W") -> Task:
    return load_task(dataset, root, name)


def fault(root: Path, *args: str) -> str:
    """Return why a task cannot be loaded."""
    with pytest.raises(UserError) as caught:
        load(root, *args)
    return str(caught.value)


# Benchmarks


@pytest.mark.parametrize("name", ["A2A", "A2C", "amazon", ""])
def test_unknown_tasks_are_refused_with_the_known_ones(root: Path, name: str) -> None:
    known = "A2W, D2W, W2D, A2D, D2A, W2A"
    assert fault(root, "office31", name) == f"office31 has no task {name}; choose from {known}"


def test_counts_other_than_the_published_ones_are_reported(tree: Callable[..., Path]) -> None:
    root = tree("folders", ["Art", "Clipart"], images=1)
    with pytest.warns(UserWarning, match="published") as caught:
        load(root, "office-home", "Ar2Cl")
    assert [str(warning.message) for warning in caught] == [
        "office-home Art: 3 images found, 2,427 published",
        "office-home Clipart: 3 images found, 4,365 published",
        "office-home: 3 categories found, 65 published",
    ]


@pytest.mark.parametrize("k", [11, 31, 40])
def test_more_categories_than_published_are_refused(tmp_path: Path, k: int) -> None:
    write_tree(tmp_path, categories=MANY[:k], images=1)
    of = "31, like office31" if k == 31 else f"{k}"
    with pytest.raises(UserError, match=f"has 10 categories, but .*amazon has {of}; set --root"):
        load(tmp_path, "office-caltech10")


def test_another_benchmarks_number_of_categories_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, categories=MANY[:10], images=1)
    with pytest.raises(
        UserError, match=r"office31 has 31 categories, .* has 10, like office-caltech10"
    ):
        load(tmp_path)


# Categories


def test_categories_on_one_side_alone_are_named(root: Path) -> None:
    (root / "amazon/mug").rename(root / "amazon/cup")
    shutil.rmtree(root / "webcam/bike")
    assert fault(root) == (
        "amazon and webcam have different categories; missing in amazon: mug; "
        "missing in webcam: bike, cup"
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("mug\u200b", r"mug\\u200b"),
        ("m\u00a0ug", r"m\\xa0ug"),
        (os.fsdecode(b"mug\xe9"), r"mug\\udce9"),
        ("Mug", "missing in amazon: Mug; missing in webcam: mug"),
    ],
)
def test_a_difference_that_one_may_not_see_is_shown(root: Path, name: str, shown: str) -> None:
    (root / "webcam/mug").rename(root / "webcam" / name)
    with pytest.raises(UserError, match=shown) as caught:
        load(root)
    str(caught.value).encode()  # no bytes that cannot be printed


def test_two_unicode_forms_are_one_category(root: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    (root / "amazon/bike").rename(root / "amazon" / composed)
    for folder, form in (("bike", composed), ("mug", decomposed)):  # two in one domain, too
        (root / "webcam" / folder).rename(root / "webcam" / form)
    shutil.rmtree(root / "amazon/mug")
    task = load(root)
    assert task.categories == [composed, "mouse"]
    assert task.source.labels == [0] * 3 + [1] * 3
    assert task.target.labels == [0] * 6 + [1] * 3


def test_a_single_category_is_refused_in_every_layout(tree: Callable[..., Path]) -> None:
    for layout in ("folders", "archive", "image_list"):
        root = tree(layout, categories=["mug"], name=layout)
        with pytest.raises(UserError, match=r"has only one category, \w+, so every prediction"):
            load(root)
    root = tree("list", categories=["mug"], name="list")  # without folders of categories
    (root / "photos").mkdir()
    (root / "amazon").rename(root / "photos/images")
    with pytest.raises(UserError, match="only one category, images, so every prediction"):
        load_folders(root / "photos", root / "webcam")


def test_a_category_without_images_is_named(root: Path) -> None:
    for path in (root / "webcam/mug").iterdir():
        path.unlink()
    none = f"category mug of domain webcam has no images: {root}/webcam/mug"
    assert fault(root) == none
    (root / "webcam/mug/0.txt").write_text("no image")
    only = "no images, only 0.txt (not an image file):"
    assert fault(root) == none.replace("no images:", only)


def test_an_empty_domain_is_named(root: Path) -> None:
    shutil.rmtree(root / "amazon")
    (root / "amazon").mkdir()
    needed = f"{root}/amazon must have a folder of images for each category"
    assert fault(root) == f"domain amazon: {needed}, but has none"
    shutil.copy(root / "webcam/mug/0.jpg", root / "amazon")
    assert fault(root) == f"domain amazon: {needed}, but has only images outside category folders"


# Partial adaptation


def test_a_target_with_fewer_categories_names_partial(root: Path) -> None:
    shutil.rmtree(root / "webcam/mug")
    write_image(root / "webcam/cup/0.jpg", 3, 0)
    assert "--partial" not in fault(root)
    shutil.rmtree(root / "webcam/cup")
    assert fault(root).endswith(
        "If webcam is meant to have only some of amazon's categories (partial adaptation), add "
        "--partial"
    )


@pytest.mark.parametrize("layout", ["folders", "archive", "image_list"])
def test_a_partial_target_lacks_categories_and_adds_none(
    tree: Callable[..., Path], layout: str
) -> None:
    root = tree(layout, images=2)
    for folder in (*root.glob("webcam/mouse"), *root.glob("webcam/images/mouse")):
        shutil.rmtree(folder)
    if layout == "image_list":
        path = root / "image_list/webcam.txt"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if "mouse" not in line))
    task = load_task("office31", root, "A2W", partial=True)
    assert task.categories == ["bike", "mouse", "mug"]
    assert task.source.labels == [0, 0, 1, 1, 2, 2]
    assert task.target.labels == [0, 0, 2, 2]
    assert [path.parent.name for path in task.target.paths] == ["bike"] * 2 + ["mug"] * 2
    assert task.lacking == ["mouse"]
    with pytest.raises(UserError, match="missing in webcam: mouse"):  # the source must have all
        load_task("office31", root, "W2A", partial=True)


@pytest.mark.parametrize("layout", ["folders", "image_list"])
def test_the_targets_of_partial_office31_keep_ten_categories(
    tree: Callable[..., Path], layout: str
) -> None:
    names = ["bike", "desk", "mug", "pen"]
    root = tree(layout, categories=names, images=2)
    (root / "webcam/desk").mkdir(exist_ok=True)
    (root / "webcam/desk/notes.txt").write_text("not of this target")
    with pytest.warns(UserWarning, match="published") as caught:
        task = load(root, "office31-partial")
    assert {str(warning.message) for warning in caught} == {
        "office31-partial amazon: 8 images found, 2,817 published",
        "office31-partial webcam (10 categories): 4 images found, 295 published",
        "office31-partial: 4 categories found, 31 published",
    }
    assert task.categories == names
    assert task.source.labels == [0, 0, 1, 1, 2, 2, 3, 3]
    assert task.target.labels == [0, 0, 2, 2]
    assert task.lacking == ["desk", "pen"]


def test_a_target_with_none_of_the_ten_is_named(tree: Callable[..., Path]) -> None:
    none = r"webcam has none of the categories back_pack, bike, .*, projector: it has desk, pen$"
    with pytest.raises(UserError, match=none):
        load(tree(categories=["desk", "pen"]), "office31-partial")
    with pytest.raises(UserError, match=r"webcamList.txt has none of .*: it has 0, 1, 2$"):
        load(tree("list", name="numbered"), "office31-partial")


# Two folders


def test_two_folders_make_a_task(root: Path) -> None:
    task = load_folders(root / "amazon", root / "webcam")
    assert task.name == "amazon2webcam"
    assert task.categories == ["bike", "mouse", "mug"]
    assert task.source.labels == task.target.labels == [0] * 3 + [1] * 3 + [2] * 3


def test_a_target_without_category_folders_has_no_labels(root: Path) -> None:
    for name in ("@eaDir", "__MACOSX", ".ipynb_checkpoints"):
        (root / "webcam/mug" / name).mkdir()
    (root / "webcam/mug/notes.csv").write_text("a,b")
    with pytest.warns(UserWarning, match=r"mug: 1 skipped: notes\.csv"):
        task = load_folders(root / "amazon", root / "webcam/mug")
    assert task.target.labels is None
    assert [path.name for path in task.target.paths] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [item.path.name for item in task.target.skipped] == ["notes.csv"]
    assert task.source.labels == [0] * 3 + [1] * 3 + [2] * 3
    assert task.lacking == []


def test_the_folders_of_an_unlabelled_target_are_no_categories(root: Path) -> None:
    (root / "webcam/mug").rename(root / "webcam/cup")
    with pytest.raises(UserError, match=r"missing in amazon: cup.* not categories, add --unlabel"):
        load_folders(root / "amazon", root / "webcam")
    task = load_folders(root / "amazon", root / "webcam", unlabelled=True)
    assert task.target.labels is None
    assert {*task.target.paths} == {*(root / "webcam").rglob("*.jpg")}


def test_two_folders_may_be_partial(root: Path) -> None:
    shutil.rmtree(root / "webcam/mouse")
    both = r"missing in webcam: mouse.* add --partial\. If .* add --unlabelled$"
    with pytest.raises(UserError, match=both):
        load_folders(root / "amazon", root / "webcam")
    task = load_folders(root / "amazon", root / "webcam", partial=True)
    assert task.target.labels == [0] * 3 + [2] * 3
    assert len(task.categories) == 3
    write_image(root / "webcam/cup/0.jpg", 3, 0)
    with pytest.raises(UserError, match="missing in amazon: cup; missing in webcam: mouse"):
        load_folders(root / "amazon", root / "webcam", partial=True)


def test_folders_of_one_name_are_told_apart_by_their_parents(tree: Callable[..., Path]) -> None:
    root = tree("archive")
    task = load_folders(root / "amazon/images", root / "webcam/images")
    assert task.name == "amazon-images2webcam-images"
    assert (task.source.name, task.target.name) == ("amazon-images", "webcam-images")


def test_no_common_category_is_said_as_such(root: Path) -> None:
    for name, other in (("bike", "velo"), ("mouse", "souris"), ("mug", "tasse")):
        (root / "webcam" / name).rename(root / "webcam" / other)
    with pytest.raises(UserError) as error:
        load_folders(root / "amazon", root / "webcam")
    assert str(error.value).startswith(
        "none of amazon's categories is one of webcam's; missing in amazon: souris, tasse, velo; "
        "missing in webcam: bike, mouse, mug"
    )


def test_swapped_folders_are_asked_about(root: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, path in enumerate(sorted((root / "webcam").rglob("*.jpg"))):
        path.rename(flat / f"{i}.jpg")
    with pytest.raises(UserError) as error:
        load_folders(flat, root / "amazon")
    needed = f"domain flat: {flat} must have a folder of images for each category"
    first = f"{needed}, but has only images outside category folders"
    swap = f"If {root}/amazon is meant to be the source, swap --source and --target"
    assert str(error.value) == f"{first}. {swap}"
    with pytest.raises(UserError) as error:
        load_folders(flat, tmp_path / "data" / "webcam" / "mug")
    assert str(error.value) == first
    write_tree(tmp_path, domains=("few",), categories=("bike", "mouse"))
    with pytest.raises(UserError, match=r"missing in few: mug\. If amazon is .* the source, swap"):
        load_folders(tmp_path / "few", root / "amazon")


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar.gz", "photos.TGZ", "photos.7z"])
def test_an_archive_is_to_be_unpacked(root: Path, tmp_path: Path, name: str) -> None:
    archive = tmp_path / "packed" / name
    archive.parent.mkdir()
    archive.write_bytes(b"PK")
    for pair in ((archive, root / "amazon"), (root / "amazon", archive)):
        with pytest.raises(UserError, match=f"{name} is an archive: unpack it first"):
            load_folders(*pair)
    with pytest.raises(UserError, match=f"{name} .an archive: unpack it first"):
        load_folders(root / "amazon", archive.parent)  # alone in a folder
    for place in (archive, archive.parent):
        with pytest.raises(UserError, match="an archive: unpack it first"):
            load_task("office31", place, "A2W")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is not a folder"):
        load_folders(root / "amazon", tmp_path / "file")


def test_wrong_folders_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is not a folder"):
        load_folders(root / "amazon", root / "nowhere")
    (tmp_path / "link").symlink_to(root / "amazon")
    for other in (root / "webcam/../amazon", tmp_path / "link"):
        with pytest.raises(UserError, match="source and target are the same folder"):
            load_folders(root / "amazon", other)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("text")
    empty = r"domain empty is empty: .* has neither .*; empty: 1 skipped: notes\.txt \(not an image"
    with pytest.raises(UserError, match=empty):
        load_folders(root / "amazon", tmp_path / "empty")
    (root / "amazon/mug/@eaDir").mkdir()  # no category
    with pytest.raises(UserError, match="images outside category folders"):
        load_folders(root / "amazon/mug", root / "webcam")


# Copies


def warn(task: Task) -> None:
    """Warn about copies, as the scripts do, by the hashes of all files."""
    paths = [*task.source.paths, *task.target.paths]
    warn_about_copies(task, hash_files(paths))


LINKS = pytest.mark.parametrize("link", [os.symlink, os.link, shutil.copy])


@LINKS
@pytest.mark.parametrize("count", [1, 3])
def test_images_of_both_domains_are_reported(root: Path, link: Callable, count: int) -> None:
    for path in sorted((root / "webcam").rglob("*.jpg"))[:count]:
        path.unlink()
        link(root / "amazon" / path.relative_to(root / "webcam"), path)
    example = f"for example {root}/amazon/bike/0.jpg is {root}/webcam/bike/0.jpg"
    with pytest.warns(
        UserWarning, match=rf"^images in both amazon and webcam: {count} of 9 .*, {example}\. The"
    ):
        warn(load(root))


@LINKS
def test_a_target_within_the_source_is_refused(root: Path, link: Callable) -> None:
    for path in sorted((root / "webcam").rglob("*.jpg")):
        path.unlink()
        link(root / "amazon" / path.relative_to(root / "webcam"), path)
    write_image(root / "amazon/mug/9.jpg", 2, 9)
    with pytest.raises(UserError, match=r"webcam: 9 of 10 and 9 of 9, .* the same files"):
        warn(load(root))
    with pytest.raises(UserError, match=r"amazon: 9 of 9 and 9 of 10, .* the same files"):
        warn(load(root, name="W2A"))
    with pytest.raises(UserError, match=r"mug: 4 of 10 and 4 of 4, .* the same files"):
        warn(load_folders(root / "amazon", root / "amazon/mug"))  # unlabelled


def test_unreadable_images_are_no_copies(root: Path) -> None:
    task = load(root)
    warn_about_copies(task, dict.fromkeys([*task.source.paths, *task.target.paths], Content(0, "")))


def test_copies_stop_the_training_or_are_reported_once(
    office: Callable[..., Path], root: Path
) -> None:
    shutil.copy(root / "amazon/mug/0.jpg", root / "webcam/mug/9.jpg")
    with pytest.warns(UserWarning, match="images in both amazon and webcam") as caught:
        office(max_steps=1, tasks=("A2W",), seeds=(0, 1))
    assert len([w for w in caught if "in both" in str(w.message)]) == 1
    shutil.rmtree(root / "webcam")
    shutil.copytree(root / "amazon", root / "webcam")
    with pytest.raises(SystemExit, match="the same files"):
        office(max_steps=1, out="other")
