"""The two files of a domain's features: written, read, and made into tasks."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from office.console import UserError
from office.data import features
from office.data.features import Extraction, Stored
from office.data.hashes import Content
from office.data.images import Preprocessing

CATEGORIES = ["bike", "mouse", "mug"]


def made_extraction(domain: str = "amazon", images: int = 5, **changes: Any) -> Extraction:
    made = Extraction(
        dataset="office31",
        domain=domain,
        backbone="resnet18",
        weights="weights.pt",
        weights_content=Content(7, "abc"),
        preprocessing=Preprocessing(36, 32),
        precision="fp32",
        views=2,
        categories=CATEGORIES,
        labels=[i % 3 for i in range(images)],
        folder=f"/data/{domain}",
        paths=[f"{i}.jpg" for i in range(images)],
        contents=[Content(i, f"{domain}{i}") for i in range(images)],
    )
    return dataclasses.replace(made, **changes)


def made_features(images: int = 5, views: int = 2, width: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(images, views, width)).astype(np.float16)


def write(out: Path, domain: str = "amazon", **changes: Any) -> np.ndarray:
    """Write a whole domain; return its features."""
    extraction = made_extraction(domain, **changes)
    values = made_features(len(extraction.paths), extraction.views)
    features.write(out, extraction, values)
    return values


# Writing


def test_features_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert not features.is_written(tmp_path, made_extraction())
    values = write(tmp_path)
    assert features.is_written(tmp_path, made_extraction())
    (stored,) = features.read(tmp_path).values()
    assert stored.extraction == made_extraction()
    assert np.array_equal(stored.features, values)
    mapped = np.load(tmp_path / "amazon.npy", mmap_mode="r")
    assert (mapped.dtype, mapped.shape) == (np.float16, (5, 2, 4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["amazon.json", "amazon.npy"]


def test_the_files_have_the_documented_format(tmp_path: Path) -> None:
    """Folders written by earlier versions are read."""
    values = write(tmp_path)
    content = (tmp_path / "amazon.npy").read_bytes()
    assert content[:8] == np.lib.format.MAGIC_PREFIX + b"\x01\x00"
    assert content[-80:] == values.tobytes()
    written = (tmp_path / "amazon.json").read_text()
    description = json.loads(written)
    assert written == json.dumps(description, indent=1)
    assert [*description] == [field.name for field in dataclasses.fields(Extraction)]
    assert description["paths"] == [f"{i}.jpg" for i in range(5)]
    assert description["labels"] == [0, 1, 2, 0, 1]
    assert description["categories"] == CATEGORIES
    assert description["contents"][1] == [1, "amazon1"]
    assert (description["preprocessing"]["resize"], description["preprocessing"]["crop"]) == (
        36,
        32,
    )


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_features_that_float16_cannot_hold_are_refused_by_image(tmp_path: Path, bad: float) -> None:
    values = made_features()
    values[3, 1, 2] = bad
    with pytest.raises(UserError, match=r"/data/amazon/3\.jpg are not finite in float16"):
        features.write(tmp_path, made_extraction(), values)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet50"}, "backbone resnet18 there, resnet50 here"),
        ({"weights_content": Content(7, "abd")}, "weights_content"),
        ({"preprocessing": Preprocessing(36, 32, squash=True)}, "preprocessing .*squash=False"),
        ({"precision": "bf16"}, "precision fp32 there, bf16 here"),
        ({"views": 1}, "views 2 there, 1 here"),
        ({"categories": ["bike", "mouse", "pen"]}, "categories"),
        ({"images": 4}, "other images, .*, 5 there, 4 here"),
        ({"contents": [Content(i, f"amazon{i % 4}") for i in range(5)]}, "other images"),
        ({"labels": [0, 0, 1, 2, 2]}, "other images, labels"),
        ({"labels": None, "categories": []}, "other images, labels"),
    ],
)
def test_files_of_another_extraction_are_refused_and_stay(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=message) as error:
        features.is_written(tmp_path, made_extraction(**changes))
    assert "choose another --out or delete it" in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_description_without_features_gives_way(tmp_path: Path) -> None:
    write(tmp_path, images=4)
    (tmp_path / "amazon.npy").unlink()
    assert not features.is_written(tmp_path, made_extraction(images=5))


def test_images_may_have_moved(tmp_path: Path) -> None:
    write(tmp_path)
    assert features.is_written(tmp_path, made_extraction(folder="/elsewhere"))


def test_features_without_their_description_are_not_touched(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "amazon.json").unlink()
    with pytest.raises(UserError, match=r"amazon\.json is missing"):
        features.is_written(tmp_path, made_extraction())


# Reading


def test_missing_features_are_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no features in .*: run extract_features\.py"):
        features.read(tmp_path)
    write(tmp_path)
    (tmp_path / "amazon.npy").unlink()
    with pytest.raises(UserError, match=r"cannot read .*amazon\.npy: .*No such file"):
        features.read(tmp_path)


def test_only_the_named_domains_are_read(tmp_path: Path) -> None:
    values = write(tmp_path)
    write(tmp_path, "webcam")
    (tmp_path / "webcam.npy").unlink()
    with pytest.raises(UserError, match=r"cannot read .*webcam\.npy"):
        features.read(tmp_path)
    (stored,) = features.read(tmp_path, ["amazon"]).values()
    np.testing.assert_array_equal(stored.features, values)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("amazon.json", b"{", "was not written by extract_features.py"),
        ("amazon.json", b"[]", "was not written by extract_features.py"),
        ("amazon.json", b'{"domain": "amazon"}', "was not written by extract_features.py"),
        ("amazon.npy", b"nothing", "cannot read"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    write(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        features.read(tmp_path)
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize("values", [made_features(4), made_features(5, 1), np.zeros((5, 2, 4))])
def test_features_of_another_shape_or_type_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    write(tmp_path)
    np.save(tmp_path / "amazon.npy", values)
    with pytest.raises(UserError, match=r"amazon\.npy does not match .*amazon\.json: it has shape"):
        features.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"backbone": "resnet50"},
            "different ways: backbone resnet18 for amazon, resnet50 for webcam",
        ),
        ({"views": 1}, "different ways: views 2 for amazon, 1 for webcam"),
        ({"weights_content": None}, "different ways: weights_content"),
    ],
)
def test_domains_that_do_not_go_together_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write(tmp_path)
    write(tmp_path, "webcam", **changes)
    with pytest.raises(UserError, match=message):
        features.read(tmp_path)


# Tasks


@pytest.fixture
def stored(tmp_path: Path) -> dict[str, Stored]:
    write(tmp_path)
    write(tmp_path, "webcam", labels=[0, 2, 1, 0, 2])
    return features.read(tmp_path)


def test_tasks_are_those_with_features_of_both_domains(stored: dict[str, Stored]) -> None:
    assert [task.name for task in features.tasks(stored, "office31", ("all",))] == ["A2W", "W2A"]
    (task,) = features.tasks(stored, "office31", ("W2A",))
    assert (task.source.name, task.target.name, task.categories) == ("webcam", "amazon", CATEGORIES)
    assert task.source.labels == [0, 0, 1, 2, 2]  # by category, as in folders
    expected = [f"/data/amazon/{i}.jpg" for i in (0, 3, 1, 4, 2)]
    assert [str(path) for path in task.target.paths] == expected
    with pytest.raises(UserError, match=r"no features for A2D, B2W.* enough for A2W, W2A"):
        features.tasks(stored, "office31", ("A2D", "A2W", "B2W"))


def test_features_of_another_benchmark_are_refused(stored: dict[str, Stored]) -> None:
    with pytest.raises(UserError, match="of office31 or office31-partial, not of office-caltech10"):
        features.tasks(stored, "office-caltech10", ("A2W",))


def test_partial_targets_keep_the_benchmarks_categories(stored: dict[str, Stored]) -> None:
    """Of the three, only the pens are not among the ten."""
    pens = {
        name: one._replace(
            extraction=dataclasses.replace(one.extraction, categories=["bike", "mouse", "pen"])
        )
        for name, one in stored.items()
    }
    (task,) = features.tasks(pens, "office31-partial", ("A2W",))
    assert (task.source.labels, len(task.source.paths)) == ([0, 0, 1, 1, 2], 5)
    assert task.target.labels == [0, 0, 1]
    assert [path.name for path in task.target.paths] == ["0.jpg", "3.jpg", "2.jpg"]
    assert task.lacking == ["pen"]


def test_a_target_that_lacks_categories_needs_partial(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "webcam", labels=[0, 1, 0, 1, 0])
    stored = features.read(tmp_path)
    with pytest.raises(UserError, match=r"missing in webcam: mug\. .* add --partial"):
        features.tasks(stored, "office31", ("A2W",))
    (task,) = features.tasks(stored, "office31", ("A2W",), partial=True)
    assert task.lacking == ["mug"]


def test_folders_go_from_the_labelled_one(tmp_path: Path) -> None:
    write(tmp_path, "shop", dataset="folders")
    write(tmp_path, "phone", dataset="folders", labels=None)
    stored = features.read(tmp_path)
    (task,) = features.tasks(stored, "folders", ("all",))
    assert (task.name, task.target.labels) == ("shop2phone", None)
    with pytest.raises(UserError, match=r"no features for phone2shop: .* enough for shop2phone"):
        features.tasks(stored, "folders", ("phone2shop",))


@pytest.mark.parametrize("categories", [["mouse", "mug", "pen"], ["bike", "mouse"]])
@pytest.mark.parametrize("unlabelled", ["aaa", "zzz"])
def test_the_categories_of_a_tasks_two_domains_are_compared(
    tmp_path: Path, categories: list[str], unlabelled: str
) -> None:
    labels = [i % len(categories) for i in range(5)]
    write(tmp_path, unlabelled, dataset="folders", labels=None, categories=[])
    write(tmp_path, "src1", dataset="folders")
    write(tmp_path, "src2", dataset="folders", categories=categories, labels=labels)
    stored = features.read(tmp_path)
    missing = "pen; missing in src2: bike" if "pen" in categories else "mug"
    for names in (("all",), ("src12src2",)):
        with pytest.raises(
            UserError, match=f"have different categories; missing in src.: {missing}"
        ):
            features.tasks(stored, "folders", names)
    tasks = features.tasks(stored, "folders", (f"src12{unlabelled}", f"src22{unlabelled}"))
    assert [task.categories for task in tasks] == [CATEGORIES, categories]


def test_the_same_categories_in_another_order_are_matched_by_name(tmp_path: Path) -> None:
    write(tmp_path, "src1", dataset="folders")
    write(tmp_path, "src2", dataset="folders", categories=CATEGORIES[::-1])
    (task, _) = features.tasks(features.read(tmp_path), "folders", ("all",))
    assert task.categories == CATEGORIES
    names = [path.name for path in task.target.paths]
    assert [*zip(names, task.target.labels, strict=True)][:2] == [("2.jpg", 0), ("1.jpg", 1)]
