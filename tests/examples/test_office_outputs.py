"""The files of a finished run: what was written is read again, and broken files are named."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from made_results import made_features, made_result
from office import files
from office.console import UserError
from office.results import outputs

GONE = object()


@pytest.mark.parametrize(
    "result",
    [
        made_result(),
        made_result(accuracy=None, confusion=None, per_category={"bike": None}, commit="85de387"),
        made_result(classifier="C_s", images=[9, 9, 123], machine={"device": "cpu", "workers": 0}),
    ],
)
def test_a_result_is_read_as_it_was_written(tmp_path, result):
    outputs.write_result(tmp_path, result)
    assert outputs.read_result(tmp_path / "result.json") == result


def test_a_result_without_one_of_its_keys_is_refused(tmp_path):
    path = tmp_path / "result.json"
    whole = vars(made_result())
    for name in whole.keys() - outputs.ADDED.keys():
        path.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        with pytest.raises(UserError, match=f"{path}.*it has no {name}$"):
            outputs.read_result(path)


def test_a_result_from_before_the_label_free_numbers_is_read(tmp_path):
    outputs.write_result(tmp_path, made_result())
    path = tmp_path / "result.json"
    content = json.loads(path.read_text())
    for name in ("predicted", "expected", "agreement"):
        del content[name]
    path.write_text(json.dumps(content))
    without = made_result(predicted={}, expected={}, agreement=None)
    assert outputs.read_result(path) == without


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", 31),
        ("seed", None),
        ("accuracy", [90.0]),
        ("final", {"target_accuracy/C_t": "high"}),
        ("predicted", {"bike": 1.0}),  # the others are expected, not predicted
        ("expected", None),
        ("epochs", {"epoch": 1}),
        ("epochs", [{"epoch": 1}, None]),
        ("epochs", [{"target_accuracy/C_t": 50.0}]),
        ("epochs", [{"epoch": 1, "source_task": [0.1]}]),
        ("confusion", [[1, 0, 0], [0, 1, 0], [0, 0]]),
        ("confusion", [[1, 0, 0], [0, 1, 0], [0, 0, "1"]]),
        ("confusion", 3),
        ("categories", ["bike", "mouse", 3]),
        ("categories", ["bike", "mouse"]),
        ("recipe", []),
        ("images", [9, None]),
    ],
)
def test_a_result_with_a_broken_value_is_refused(tmp_path, name, value):
    outputs.write_result(tmp_path, dataclasses.replace(made_result(), **{name: value}))
    named = "confusion must be 2 x 2" if value == ["bike", "mouse"] else f"result.json: .*{name}"
    with pytest.raises(UserError, match=named) as error:
        outputs.read_result(tmp_path / "result.json")
    assert str(tmp_path / "result.json") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b'{"dataset": "off', b"[]", b"3", b"{}", b"\xff\xfe"])
def test_a_file_that_is_no_result_is_refused(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        outputs.read_result(path)
    path.unlink()
    with pytest.raises(UserError, match=str(path)):
        outputs.read_result(path)


def test_a_message_about_a_broken_result_stays_short(tmp_path):
    epochs = [{"epoch": number} for number in range(200)] + [None]
    outputs.write_result(tmp_path, made_result(epochs=epochs))
    with pytest.raises(UserError) as error:
        outputs.read_result(tmp_path / "result.json")
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_the_worst_category_has_the_smallest_recall():
    recalls = {"bike": 50.0, "mouse": None, "mug": 40.0, "pen": float("nan")}
    assert made_result(per_category=recalls).worst_category == ("mug", 40.0)
    assert made_result(per_category={"bike": None}).worst_category is None


@pytest.mark.parametrize("logits", [None, np.float32([[0.5] * 6] * 12)])
def test_features_are_read_as_they_were_written(tmp_path, logits):
    written = dataclasses.replace(made_features(), logits=logits)
    outputs.write_features(tmp_path, written)
    read = outputs.read_features(tmp_path / "features.npz")
    for field in dataclasses.fields(outputs.Features):
        left, right = getattr(written, field.name), getattr(read, field.name)
        assert (left is None) == (right is None)
        if left is not None:
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"features": GONE}, "it has no features"),
        ({"domain": GONE}, "it has no domain"),
        ({"label": GONE}, "it has no label"),
        ({"label": np.zeros(29, np.int16)}, "must have the same length"),
        ({"domain": np.zeros(31, np.uint8)}, "must have the same length"),
        ({"logits": np.zeros((30, 6), np.float32)}, "logits must have one row per target image"),
        ({"label": np.array([None] * 30)}, "cannot read"),  # pickled
    ],
)
def test_broken_features_are_refused(tmp_path, changes, why):
    path = tmp_path / "features.npz"
    arrays = {**vars(made_features()), "logits": np.zeros((12, 6), np.float32), **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not GONE})
    with pytest.raises(UserError, match=why) as error:
        outputs.read_features(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    path = tmp_path / "features.npz"
    outputs.write_features(tmp_path, made_features())
    whole = path.read_bytes()
    np.save(tmp_path / "one.npy", np.zeros(3))
    flipped = bytearray(whole)
    flipped[200] ^= 255
    one = (tmp_path / "one.npy").read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], b"features", one, bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"cannot read {path}"):
            outputs.read_features(path)
    path.unlink()
    with pytest.raises(UserError, match=f"cannot read {path}"):
        outputs.read_features(path)


def test_a_file_is_replaced_at_once(tmp_path):
    path = tmp_path / "log.jsonl"
    files.write(path, b"old")
    with open(path, "rb") as old:  # as if it were read while the new one is written
        files.write(path, b"new")
        assert old.read() == b"old"
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/no/a: .*no previous one"):
        files.write(tmp_path / "no" / "a", b"new")


def test_predictions_are_read_as_they_were_written(tmp_path):
    rows = [
        outputs.Prediction(Path('a "b", c.jpg'), "a, mug", 0.5),
        outputs.Prediction(Path("d\n.jpg"), "bike", 0.12345),
    ]
    outputs.write_predictions(tmp_path, rows)
    expected = [rows[0], rows[1]._replace(confidence=pytest.approx(0.12345, abs=1e-4))]
    assert outputs.read_predictions(tmp_path / "predictions.csv") == expected


@pytest.mark.parametrize(
    "content",
    [
        b"path,category\na.jpg,mug\n",
        b"path,category,confidence\na.jpg,mug,high\n",
        b"path,category,confidence\na.jpg\n",
        b'path,category,confidence\n"a.jpg,mug,0.5\n',
        b"path,category,confidence\n\xff,mug,0.5\n",
        None,
    ],
)
def test_broken_predictions_are_refused(tmp_path, content):
    path = tmp_path / "predictions.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"cannot read {path}"):
        outputs.read_predictions(path)
