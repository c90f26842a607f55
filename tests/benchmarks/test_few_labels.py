"""benchmarks/few_labels.py: labelled images are not scored, and a stopped run continues."""

import csv
import json

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="benchmarks/features.py needs scikit-learn")

import few_labels

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(3), 30))


def test_each_category_gets_its_shots_and_more_shots_hold_fewer():
    one, three = (few_labels.drawn(LABELS, shots, 0) for shots in (1, 3))
    assert np.bincount(LABELS[three]).tolist() == [3] * 3
    assert {*one} < {*three}
    assert {*three} != {*few_labels.drawn(LABELS, 3, 1)}


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i, name in enumerate(("amazon", "webcam")):
        rows = np.eye(3, 6)[LABELS] + 0.2 * rng.normal(size=(90, 6)) + 0.1 * i
        np.save(tmp_path / f"{name}.npy", rows.astype("float32"))
        about = {"labels": LABELS.tolist(), "categories": ["bike", "mug", "pen"]}
        (tmp_path / f"{name}.json").write_text(json.dumps(about))
    return tmp_path


def test_a_stopped_run_continues_and_labelled_images_are_not_scored(folder, monkeypatch, capsys):
    monkeypatch.setattr("symloss.estimator._STEPS", 20)
    monkeypatch.setattr("symloss.estimator._EPOCHS", 1)
    fits, train = [], few_labels.train

    class RightWhereKnown:
        """Predicts the labels that it was given, and category 0 elsewhere."""

        def __init__(self, known):
            self.known = known

        def predict(self, features):
            predicted = np.zeros(len(features), dtype=int)
            predicted[self.known] = LABELS[self.known]
            return predicted

    def noting(method, source, target, known, seed):
        fits.append((method, len(known)))
        train(method, source, target, known, seed)
        return RightWhereKnown(known)

    monkeypatch.setattr(few_labels, "train", noting)
    threads = torch.get_num_threads()
    out = folder / "runs.csv"
    options = [str(folder), "--csv", str(out), "--task", "a2w", "--seeds", "0", "--shots"]
    few_labels.main([*options, "1"])
    first = out.read_text()
    few_labels.main([*options, "1", "3"])
    torch.set_num_threads(threads)
    assert out.read_text().startswith(first)
    assert fits == [(method, 3 * shots) for shots in (1, 3) for method in few_labels.METHODS]
    with open(out, newline="") as file:
        runs = [*csv.DictReader(file)]
    assert [(run["method"], run["shots"]) for run in runs] == [
        (method, shots) for shots in "13" for method in few_labels.METHODS
    ]
    assert all(float(run["accuracy"]) == pytest.approx(100 / 3, abs=0.01) for run in runs)
    assert "amazon to webcam, 3" in capsys.readouterr().out


def test_the_model_without_target_labels_is_trained_once(folder, monkeypatch):
    monkeypatch.setattr("symloss.estimator._STEPS", 20)
    monkeypatch.setattr("symloss.estimator._EPOCHS", 1)
    monkeypatch.setattr(few_labels, "METHODS", ["no target labels"])
    fits = []
    fit = few_labels.symloss.SymNetClassifier.fit
    monkeypatch.setattr(
        few_labels.symloss.SymNetClassifier,
        "fit",
        lambda *args, **options: fits.append(options) or fit(*args, **options),
    )
    threads = torch.get_num_threads()
    few_labels.main([str(folder), "--csv", str(folder / "o"), "--task", "a2w", "--seeds", "0"])
    torch.set_num_threads(threads)
    assert fits == [{"target_labels": None}]
