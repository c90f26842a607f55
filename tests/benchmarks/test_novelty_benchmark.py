"""benchmarks/novelty.py: its protocol, its measures, and that a stopped run continues."""

import csv
import json

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="benchmarks/features.py needs scikit-learn")

import features
import novelty
import shares


def test_the_protocol_has_ten_categories_in_both_ten_and_eleven_in_one():
    others = [f"other {i:02}" for i in range(21)]
    names = sorted([*shares.CALTECH.split(), *others])
    both, source, target = ([names[i] for i in part] for part in novelty.split(names))
    assert both == sorted(shares.CALTECH.split())
    assert source == others[:10]
    assert target == others[10:]


def test_auroc_counts_pairs_and_ties_half():
    score, unknown = np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, False, True, True])
    assert novelty.auroc(score, unknown) == pytest.approx(100 * 3.5 / 4)
    assert novelty.auroc(-score, unknown) == pytest.approx(100 * 0.5 / 4)


def test_h_score_by_hand():
    true = np.array([0, 0, 1, 1, 1, -1, -1])
    predicted = np.array([0, 1, 1, 1, 1, 0, 1])
    rejected = np.array([0, 0, 1, 0, 0, 1, 0], dtype=bool)
    known = (1 / 2 + 2 / 3) / 2
    assert novelty.h_score(predicted, rejected, true) == pytest.approx(
        100 * 2 * known * 0.5 / (known + 0.5)
    )
    assert novelty.h_score(predicted, ~rejected & False, true) == 0
    assert novelty.h_score(predicted, rejected | True, true) == 0


def test_the_best_threshold_is_no_worse_than_others():
    rng = np.random.default_rng(0)
    true, score = np.repeat([0, 1, -1], 20), rng.normal(size=60) + np.repeat([0, 0, 2], 20)
    predicted = np.repeat([0, 1, 0], 20)
    best = novelty.best(predicted, score, true)
    for share in (0.0, 0.2, 0.5, 1.0):
        rejected = novelty.highest(score, share)
        assert rejected.mean() == pytest.approx(share, abs=0.04)
        assert novelty.h_score(predicted, rejected, true) <= best


def test_a_stopped_run_continues(tmp_path, monkeypatch, capsys):
    rng, labels = np.random.default_rng(0), np.arange(93) % 31
    names = sorted([*shares.CALTECH.split(), *(f"other {i:02}" for i in range(21))])
    for i, name in enumerate(("amazon", "webcam")):
        rows = np.eye(31, 40)[labels] + 0.1 * rng.normal(size=(93, 40)) + 0.1 * i
        np.save(tmp_path / f"{name}.npy", rows.astype("float32"))
        about = {"labels": labels.tolist(), "categories": names}
        (tmp_path / f"{name}.json").write_text(json.dumps(about))
    monkeypatch.setattr(features, "STEPS", 5)
    monkeypatch.setattr("symloss.estimator._STEPS", 5)
    monkeypatch.setattr("symloss.estimator._EPOCHS", 1)
    threads, out = torch.get_num_threads(), tmp_path / "runs.csv"
    options = [str(tmp_path), "--csv", str(out), "--task", "a2w"]
    novelty.main([*options, "--seeds", "0"])
    first = out.read_text()
    novelty.main([*options, "--seeds", "0", "1"])
    torch.set_num_threads(threads)
    assert out.read_text().startswith(first)
    with open(out, newline="") as file:
        runs = [*csv.DictReader(file)]
    assert len(runs) == 6 + 4  # what has no seed runs once
    assert all(float(run["unknown"]) == pytest.approx(100 * 11 / 21, rel=1e-4) for run in runs)
    assert all(float(run["h_score"]) <= float(run["h_best"]) for run in runs)
    assert "novelty" in capsys.readouterr().out
