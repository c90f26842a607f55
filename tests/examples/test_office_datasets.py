import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_tree
from office.console import UserError
from office.data import datasets, images, loading
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore:.*published")
REAL = Path(__file__).parents[2].parent / "shared/data"


def colours(domain: datasets.Domain) -> dict[int, np.ndarray]:
    """Mean colour of the images of each label: the trees give each category its own."""
    found: dict[int, list] = {}
    for path, label in zip(domain.paths, domain.labels or [], strict=True):
        found.setdefault(label, []).append(np.asarray(Image.open(path)).mean((0, 1)))
    return {label: np.mean(values, 0) for label, values in found.items()}


# Tasks


TASKS = {
    "office31": "A2W D2W W2D A2D D2A W2A",
    "imageclef-da": "I2P P2I I2C C2I C2P P2C",
    "office-home": "Ar2Cl Ar2Pr Ar2Rw Cl2Ar Cl2Pr Cl2Rw Pr2Ar Pr2Cl Pr2Rw Rw2Ar Rw2Cl Rw2Pr",
    "office-caltech10": "A2C A2D A2W C2A C2D C2W D2A D2C D2W W2A W2C W2D",
    "office31-partial": "A2W D2W W2D A2D D2A W2A",
}


@pytest.mark.parametrize("dataset", TASKS)
def test_tasks_follow_the_order_of_the_papers_tables(dataset: str) -> None:
    assert datasets.DATASETS.keys() == TASKS.keys()
    assert datasets.task_names(dataset) == TASKS[dataset].split()


def test_published_counts_add_up_to_the_papers() -> None:
    total = {
        name: sum(part.images for part in benchmark.domains.values())
        for name, benchmark in datasets.DATASETS.items()
    }
    # 4,110 is section 4.1's; 15,588 its "15,500"; 3 x 12 x 50; Gong et al.'s 2,533.
    assert total == {
        "office31": 4110,
        "imageclef-da": 1800,
        "office-home": 15588,
        "office-caltech10": 2533,
        "office31-partial": 4110,
    }


@pytest.mark.parametrize("dataset", [name for name in TASKS if "partial" not in name])
@pytest.mark.parametrize("layout", ["folders", "archive", "image_list", "list"])
def test_every_task_loads_in_every_layout(
    tree: Callable[..., Path], dataset: str, layout: str
) -> None:
    parts = datasets.DATASETS[dataset].domains
    root = tree(layout, [part.name for part in parts.values()], images=2)
    assert datasets.available_tasks(dataset, root) == datasets.task_names(dataset)
    for name in datasets.task_names(dataset):
        task = datasets.load_task(dataset, root, name)
        source, target = name.split("2")
        assert task.name == name
        assert (task.source.name, task.target.name) == (parts[source].name, parts[target].name)
        numbers = layout == "list"
        assert task.categories == (["0", "1", "2"] if numbers else ["bike", "mouse", "mug"])
        for domain in (task.source, task.target):
            assert domain.labels == [0, 0, 1, 1, 2, 2]
            assert all(domain.name in path.parts for path in domain.paths)
            assert len(set(domain.paths)) == 6
        found = colours(task.source), colours(task.target)
        for label in range(3):
            assert np.abs(found[0][label] - found[1][label]).max() < 8


@pytest.mark.parametrize("folder", ["Real World", "RealWorld", "Real_World", "real-world"])
def test_spellings_of_a_folder_name(tree: Callable[..., Path], folder: str) -> None:
    task = datasets.load_task("office-home", tree("folders", ["ART", folder]), "Ar2Rw")
    assert (len(task.source.paths), len(task.target.paths)) == (12, 12)
    assert folder in task.target.paths[0].parts
    task = datasets.load_task(
        "office-home", tree("image_list", ["Art", folder], name="lists"), "Ar2Rw"
    )
    assert len(task.target.paths) == 12


def test_archives_that_unpack_into_a_folder_of_their_own(tree: Callable[..., Path]) -> None:
    for layout in ("archive", "image_list"):
        root = tree(layout, name=f"{layout}/unpacked").parent
        assert len(datasets.load_task("office31", root, "A2W").source.paths) == 12


def test_other_files_are_passed_over(tree: Callable[..., Path]) -> None:
    root = tree()
    for stray in ("Thumbs.db", ".DS_Store", "._0.jpg", "desktop.ini"):
        (root / "amazon/bike" / stray).write_text("stray")
    (root / "amazon/.cache").mkdir()
    shutil.move(root / "amazon/mug/0.jpg", root / "amazon/mug/0.JPEG")
    assert len(datasets.load_task("office31", root, "A2W").source.paths) == 12


def test_links_are_followed(tree: Callable[..., Path], tmp_path: Path) -> None:
    root = tree(name="real")
    linked = tmp_path / "linked"
    (linked / "webcam").mkdir(parents=True)
    (linked / "amazon").symlink_to(root / "amazon")
    for category in ("bike", "mouse"):
        (linked / "webcam" / category).symlink_to(root / "webcam" / category)
    (linked / "webcam/mug").mkdir()
    (linked / "webcam/mug/0.jpg").symlink_to(root / "webcam/mug/0.jpg")
    task = datasets.load_task("office31", linked, "A2W")
    assert (len(task.source.paths), len(task.target.paths)) == (12, 9)
    (root / "webcam/mug/0.jpg").unlink()
    task = datasets.load_task("office31", linked, "A2W")
    with pytest.raises(UserError, match=r"webcam/mug/0\.jpg"):
        images.load_image(task.target.paths[-1])


def test_only_the_tasks_domains_are_needed(tree: Callable[..., Path]) -> None:
    root = tree("folders", ["amazon", "webcam"])
    assert datasets.available_tasks("office-caltech10", root) == ["A2W", "W2A"]
    with pytest.raises(UserError, match="caltech10 not found"):
        datasets.load_task("office-caltech10", root, "A2C")


def test_counts_other_than_the_published_ones_are_named(tree: Callable[..., Path]) -> None:
    root = tree("folders", ["Art", "Clipart"], images=1)
    with pytest.warns(UserWarning, match="published") as caught:
        datasets.load_task("office-home", root, "Ar2Cl")
    assert [str(warning.message) for warning in caught] == [
        "office-home Art: 3 images found, 2,427 published",
        "office-home Clipart: 3 images found, 4,365 published",
        "office-home: 3 categories found, 65 published",
    ]


@pytest.mark.filterwarnings("error")  # so that the published counts are there
@pytest.mark.skipif(not REAL.is_dir(), reason="needs the photographs of ../shared/data")
@pytest.mark.parametrize(
    ("dataset", "folder"), [("office31", "office31"), ("office-caltech10", "office_caltech10")]
)
def test_real_photographs(dataset: str, folder: str) -> None:
    assert datasets.available_tasks(dataset, REAL / folder) == TASKS[dataset].split()
    for name in TASKS[dataset].split():
        task = datasets.load_task(dataset, REAL / folder, name)
        for domain in (task.source, task.target):
            for path, label in zip(domain.paths, domain.labels, strict=True):
                assert path.parent.name == task.categories[label]
    photographs = loading.Images(task.source.paths, images.Preprocessing(), {})
    assert photographs[-1, None][0].shape == (3, 224, 224)


@pytest.mark.filterwarnings("error")
@pytest.mark.skipif(not REAL.is_dir(), reason="needs the photographs of ../shared/data")
def test_partial_office31_on_real_photographs() -> None:
    counts = {"A": 958, "W": 295, "D": 157}  # those of Office-Caltech10, made of the same ten
    for name in datasets.task_names("office31-partial"):
        task = datasets.load_task("office31-partial", REAL / "office31", name)
        assert len(task.target.paths) == counts[name[-1]]
        assert len(task.categories) == 31
        assert len(task.lacking) == 21
        for path, label in zip(task.target.paths, task.target.labels, strict=True):
            assert path.parent.name == task.categories[label]
    assert sorted(set(task.categories) - set(task.lacking)) == sorted(PARTIAL)


# Partial adaptation

PARTIAL = ["back_pack", "bike", "calculator", "headphones", "keyboard", "laptop_computer"]
PARTIAL += ["monitor", "mouse", "mug", "projector"]


def test_the_targets_of_partial_office31_keep_ten_categories(tree: Callable[..., Path]) -> None:
    names = ["bike", "desk", "mug", "pen"]
    for layout in ("folders", "image_list"):
        root = tree(layout, ["amazon", "webcam"], categories=names, images=2, name=layout)
        (root / "webcam/desk").mkdir(exist_ok=True, parents=True)
        (root / "webcam/desk/notes.txt").write_text("not of this target")
        with pytest.warns(UserWarning, match="published") as caught:
            task = datasets.load_task("office31-partial", root, "A2W")
        assert {str(warning.message) for warning in caught} == {
            "office31-partial amazon: 8 images found, 2,817 published",
            "office31-partial webcam (10 categories): 4 images found, 295 published",
            "office31-partial: 4 categories found, 31 published",
        }
        assert task.categories == names
        assert task.source.labels == [0, 0, 1, 1, 2, 2, 3, 3]
        assert task.target.labels == [0, 0, 2, 2]
        assert task.lacking == ["desk", "pen"]


@pytest.mark.filterwarnings("ignore:webcam.*skipped", "ignore:.*published")
def test_check_shows_a_domain_as_source_and_as_target(
    tree: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(categories=["bike", "desk", "mug"], images=2)
    (root / "webcam/mug/notes.txt").write_text("of both")
    tasks = [datasets.load_task("office31-partial", root, name) for name in ("A2W", "W2A")]
    assert datasets.check(tasks)
    head, *lines = capsys.readouterr().out.splitlines()
    columns = "category, amazon, webcam (10 categories), webcam, amazon (10 categories), skipped"
    assert re.split(r"  +", head) == columns.split(", ")
    cells = [line.split() for line in lines]
    assert cells[:3] == [
        ["bike", "2", "2", "2", "2", "-"],
        ["desk", "2", "-", "2", "-", "-"],
        ["mug", "2", "2", "2", "2", "1"],
    ]
    assert lines[4] == "12 of 13 files are read, 1 skipped"


@pytest.mark.filterwarnings("ignore:.*published")
def test_a_target_with_none_of_the_ten_is_named(tree: Callable[..., Path]) -> None:
    root = tree(categories=["desk", "pen"])
    none = r"webcam has none of the categories back_pack, bike, .*, projector: it has desk, pen$"
    with pytest.raises(UserError, match=none):
        datasets.load_task("office31-partial", root, "A2W")
    root = tree("list", name="numbered")
    with pytest.raises(UserError, match=r"webcamList.txt has none of .*: it has 0, 1, 2$"):
        datasets.load_task("office31-partial", root, "A2W")


# Bad input


@pytest.mark.parametrize("root", [None, Path("no/such/folder")])
def test_a_missing_root_is_explained(root: Path | None) -> None:
    with pytest.raises(UserError) as caught:
        datasets.load_task("office-home", root, "Ar2Rw")
    message = str(caught.value)
    assert "Art and Real World not found" in message
    assert ("no/such/folder is not a folder" if root else "--root is not given") in message
    for line in ("Art/<category>/*.jpg", "image_list/Art.txt", "hemanthdv.org", "train_digits.py"):
        assert line in message


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("A2A", "no task A2A: its source and target are the same domain; choose A2W, D2W"),
        ("A2C", "no task A2C: the domains are A, W, D; choose A2W"),
        ("amazon", "no task amazon"),
        ("", "no task"),
    ],
)
def test_unknown_tasks(tree: Callable[..., Path], task: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        datasets.load_task("office31", tree(), task)


def fault(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        datasets.load_task("office31", root, "A2W")
    return str(caught.value)


def test_a_category_without_images_is_named(tree: Callable[..., Path]) -> None:
    root = tree()
    for path in (root / "webcam/mug").iterdir():
        path.unlink()
    assert fault(root) == f"category mug of domain webcam has no images: {root}/webcam/mug"


def test_an_empty_domain_is_named(tree: Callable[..., Path]) -> None:
    root = tree()
    shutil.rmtree(root / "amazon")
    (root / "amazon").mkdir()
    assert fault(root) == f"domain amazon is empty: {root}/amazon has no category folders"


def test_a_domain_without_category_folders_is_named(tree: Callable[..., Path]) -> None:
    root = tree()
    shutil.rmtree(root / "amazon")
    shutil.copytree(root / "webcam/mug", root / "amazon")
    has = "has images outside category folders"
    assert fault(root) == f"domain amazon is empty: {root}/amazon {has}"


def test_categories_on_one_side_alone_are_named(tree: Callable[..., Path]) -> None:
    root = tree()
    (root / "amazon/mug").rename(root / "amazon/cup")
    shutil.rmtree(root / "webcam/bike")
    assert fault(root) == (
        "amazon and webcam differ in categories; missing in amazon: mug; "
        "missing in webcam: bike, cup. Both need the same categories: remove the extra folder, or "
        "rename it"
    )


# Folders


def test_folders(tree: Callable[..., Path]) -> None:
    root = tree("folders", ["photos", "sketches"])
    task = datasets.load_folders(root / "photos", root / "sketches")
    assert task.name == "photos2sketches"
    assert task.categories == ["bike", "mouse", "mug"]
    assert task.source.labels == task.target.labels == [0] * 4 + [1] * 4 + [2] * 4


def test_a_target_folder_without_categories_has_no_labels(tree: Callable[..., Path]) -> None:
    root = tree("folders", ["photos", "sketches"])
    task = datasets.load_folders(root / "photos", root / "sketches/mug")
    assert task.target.labels is None
    assert [path.name for path in task.target.paths] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert task.source.labels == [0] * 4 + [1] * 4 + [2] * 4
    assert datasets.check([task])


def test_folders_of_one_name_keep_their_names_apart(tree: Callable[..., Path]) -> None:
    root = tree("archive")
    task = datasets.load_folders(root / "amazon/images", root / "webcam/images")
    assert task.name == "amazon-images2webcam-images"


def test_check_counts_folders_whose_parents_have_one_name_too(tmp_path: Path, capsys) -> None:
    for i, above in enumerate("ab"):
        write_tree(tmp_path / above / "x", domains=("y", "photos")[i:], images=3 + i)
    task = datasets.load_folders(tmp_path / "a/x/photos", tmp_path / "b/x/photos")
    assert task.name == "a-x-photos2b-x-photos"
    assert datasets.check([task])
    assert "9 of 21" not in capsys.readouterr().out


def test_bad_folders(tree: Callable[..., Path], tmp_path: Path) -> None:
    root = tree()
    with pytest.raises(UserError, match=r"no such folder: .*nowhere"):
        datasets.load_folders(root / "amazon", root / "nowhere")
    with pytest.raises(UserError, match="same folder"):
        datasets.load_folders(root / "amazon", root / "webcam/../amazon")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="domain empty is empty"):
        datasets.load_folders(root / "amazon", tmp_path / "empty")
    with pytest.raises(UserError, match="outside category folders"):
        datasets.load_folders(root / "amazon/mug", root / "webcam")


# --check


def test_check_prints_how_many_images_each_category_has(
    tree: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(images=2)
    (root / "amazon/mug/1.jpg").unlink()
    names = datasets.available_tasks("office31", root)
    assert names == ["A2W", "W2A"]
    assert datasets.check([datasets.load_task("office31", root, name) for name in names])
    assert capsys.readouterr().out.splitlines() == [
        "category  amazon  webcam  skipped",
        "bike           2       2        -",
        "mouse          2       2        -",
        "mug            1       2        -",
        "all            5       6        -",
        "11 of 11 images can be read",
    ]


def test_check_names_the_unreadable_and_counts_the_converted(
    tree: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree(images=2)
    broken = root / "webcam/mouse/1.jpg"
    os.truncate(broken, broken.stat().st_size // 2)
    buffer = io.BytesIO()
    Image.open(root / "amazon/bike/0.jpg").convert("CMYK").save(buffer, "JPEG")
    (root / "amazon/bike/0.jpg").write_bytes(buffer.getvalue())
    assert not datasets.check([datasets.load_task("office31", root, "A2W")])
    out = capsys.readouterr().out.splitlines()
    assert out[-2] == "11 of 12 images can be read; converted to RGB: 1 CMYK"
    assert out[-1].startswith(f"cannot read the image {broken}: ")
