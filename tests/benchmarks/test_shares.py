"""benchmarks/shares.py: its targets have the shares they promise, and a stopped run continues."""

import csv
import json

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="benchmarks/features.py needs scikit-learn")

import features
import shares

NAMES = [*shares.CALTECH.split(), *(f"other {i:02}" for i in range(4))]
LABELS = np.repeat(np.arange(14), 20)


def counts(kind, draw=0, alpha=1.0):
    index = shares.drawn(LABELS, kind, draw, NAMES, alpha)
    return np.bincount(LABELS[index], minlength=14)


def test_an_uneven_target_keeps_every_fifth_image_of_half_the_categories():
    for draw in (0, 1):
        assert sorted(counts("uneven", draw)) == [4] * 7 + [20] * 7
    assert (counts("uneven", 0) != counts("uneven", 1)).any()


def test_a_partial_target_keeps_ten_categories_of_the_protocol_first():
    assert counts("partial", 0).tolist() == [20] * 10 + [0] * 4
    assert sorted(counts("partial", 1)) == [0] * 4 + [20] * 10


def test_a_drawn_target_has_the_shares_that_were_drawn():
    kept = counts("dirichlet", 3)
    drawn = np.random.default_rng(3).dirichlet([1.0] * 14)
    assert np.abs(kept / kept.sum() - drawn).sum() < 0.5
    assert kept.max() == 20
    assert counts("as it is").tolist() == [20] * 14


@pytest.fixture
def folder(tmp_path):
    rng, labels = np.random.default_rng(0), np.arange(60) % 3
    for i, name in enumerate(("amazon", "webcam")):
        rows = np.eye(3, 6)[labels] + 0.2 * rng.normal(size=(60, 6)) + 0.1 * i
        np.save(tmp_path / f"{name}.npy", rows.astype("float32"))
        about = {"labels": labels.tolist(), "categories": ["bike", "mug", "pen"]}
        (tmp_path / f"{name}.json").write_text(json.dumps(about))
    return tmp_path


def test_a_stopped_run_continues(folder, monkeypatch, capsys):
    monkeypatch.setattr(features, "STEPS", 20)
    monkeypatch.setattr("symloss.estimator._STEPS", 20)
    monkeypatch.setattr("symloss.estimator._EPOCHS", 1)
    threads = torch.get_num_threads()
    out = folder / "runs.csv"
    options = [str(folder), "--csv", str(out), "--kinds", "uneven", "--task", "a2w", "--seeds", "0"]
    shares.main([*options, "--methods", "source only", "SymmNets-V2"])
    first = out.read_text()
    shares.main(options)
    torch.set_num_threads(threads)
    assert out.read_text().startswith(first)
    with open(out, newline="") as file:
        runs = [*csv.DictReader(file)]
    assert len(runs) == 3 * 7  # draws, methods
    assert len({(run["draw"], run["method"]) for run in runs}) == 21
    for run in runs:
        assert (run["error"] != "") == (run["method"].endswith("shares"))
        assert 0 <= float(run["accuracy"]) <= 100
    exact = [float(run["error"]) for run in runs if run["method"] == "true shares"]
    assert max(exact) < 0.01
    assert "mean, uneven" in capsys.readouterr().out
