"""Files that version 0.2 wrote are still read, finished runs recognised and numbers the same.

golden/features/ is what extract_features.py wrote for two folders of images, the second without
labels; golden/unlabelled/ is a run of train_features.py on it, and labelled.json is the result of a
run whose target has labels. Paths were made relative afterwards.
"""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import train_features
from made_results import read_predictions
from office.console import UserError
from office.models.saved import read_model
from office.results.outputs import read_features, read_result

GOLDEN = Path(__file__).parent / "golden"
RUN = GOLDEN / "unlabelled"
OPTIONS = ["--method", "symnets", "--seeds", "0", "--epochs", "12", "--lr", "0.1"]
OPTIONS += ["--batch-size", "4", "--bottleneck", "4"]


def content(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["unlabelled/result.json", "labelled.json"])
def test_a_result_is_read_field_by_field(name):
    saved = content(GOLDEN / name) | {"trust": None}  # newer than the files
    assert dataclasses.asdict(read_result(GOLDEN / name)) == saved


def test_predictions_are_read_row_by_row():
    with open(RUN / "predictions.csv", encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    rows = [(Path(path), category, float(share)) for path, category, share in lines]
    assert header == ["path", "category", "confidence"]
    assert len(rows) == 9
    assert read_predictions(RUN / "predictions.csv") == rows


def test_features_are_read_array_by_array():
    features = read_features(RUN / "features.npz")
    with np.load(RUN / "features.npz") as arrays:
        assert {*arrays} == {"features", "domain", "label", "logits"}
        for name, array in arrays.items():
            assert getattr(features, name).dtype == array.dtype
            np.testing.assert_array_equal(getattr(features, name), array)


def test_a_model_is_read_whole_and_gives_the_saved_features_and_logits():
    model, saved = read_model(RUN / "model.pt"), torch.load(RUN / "model.pt", weights_only=True)
    for name in ("extractor", "classifier"):
        weights = getattr(model, name).state_dict()
        assert weights.keys() == saved[name].keys()
        assert all(torch.equal(weights[key], tensor) for key, tensor in saved[name].items())
    assert model.categories == saved["categories"] == ["bike", "grüne headphones", "mug"]
    assert (model.backbone, model.frozen) == ("mobilenet_v2", 1280)
    assert dataclasses.asdict(model.preprocessing).items() >= saved["preprocessing"].items()
    images = torch.from_numpy(np.load(GOLDEN / "features" / "new.npy")[:, 0]).float()
    with np.load(RUN / "features.npz") as arrays, torch.inference_mode():
        features = model.extractor(images)
        np.testing.assert_allclose(features, arrays["features"][12:], rtol=2e-3, atol=2e-3)
        logits = model.classifier(features)
        np.testing.assert_allclose(logits, arrays["logits"][:, 3:], rtol=1e-4, atol=1e-4)


def test_a_finished_run_is_recognised(tmp_path, capsys):
    folder = tmp_path / "folders" / "labelled2new" / "symnets" / "seed0"
    shutil.copytree(RUN, folder)
    train_features.main([str(GOLDEN / "features"), *OPTIONS, "--out", str(tmp_path)])
    assert f"already finished, see {folder}" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*twice the 3 categories")
def test_a_run_with_equal_shares_is_not_taken_for_one_that_estimates_them(tmp_path):
    """Version 0.2 wrote prior uniform, its default; a result without the setting is older."""
    line = [str(GOLDEN / "features"), *OPTIONS, "--method", "symnets-balanced"]
    folder = tmp_path / "folders" / "labelled2new" / "symnets-balanced" / "seed0"
    shutil.copytree(RUN, folder)
    saved = content(folder / "result.json") | {"method": "symnets-balanced"}
    for older in ({"balance": 3.0, "prior": "uniform"}, {"balance": 3.0}):
        saved["recipe"] = content(RUN / "result.json")["recipe"] | older
        (folder / "result.json").write_text(json.dumps(saved), encoding="utf-8")
        with pytest.raises(UserError, match=r"prior uniform there, estimate here"):
            train_features.main([*line, "--out", str(tmp_path)])
        train_features.main([*line, "--prior", "uniform", "--out", str(tmp_path)])  # finished
        assert content(folder / "result.json") == saved


def assert_close(found, expected):
    """Numbers by name, but for what another processor's order of additions changes."""
    assert found.keys() == expected.keys()
    for name, number in expected.items():
        assert found[name] == (None if number is None else pytest.approx(number, rel=1e-3)), name


def test_the_same_features_and_settings_give_the_same_numbers(tmp_path):
    train_features.main([str(GOLDEN / "features"), *OPTIONS, "--out", str(tmp_path)])
    (path,) = tmp_path.rglob("result.json")
    again, before = content(path), content(RUN / "result.json")
    for epoch, expected in zip(again["epochs"], before["epochs"], strict=True):
        assert_close(epoch, expected)
    for name in ("final", "predicted", "expected"):
        assert_close(again[name], before[name])
    for name in ("task", "classifier", "agreement", "categories", "images", "recipe"):
        assert again[name] == before[name]
    listings = [folder.joinpath("inputs.csv").read_text("utf-8") for folder in (path.parent, RUN)]
    assert listings[0] == listings[1]
