"""benchmarks/sources.py: each target from each other domain and from both."""

import csv
import json
from functools import partial

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="benchmarks/features.py needs scikit-learn")

import sources

import symloss


def test_a_target_is_reached_from_each_domain_and_from_both(tmp_path, capsys, monkeypatch):
    labels = np.arange(40) % 4
    for i, name in enumerate("abc"):
        rows = np.eye(4, 6)[labels] + 0.1 * np.random.default_rng(i).normal(size=(40, 6))
        np.save(tmp_path / f"{name}.npy", rows.astype("float32")[:, None])
        text = json.dumps({"labels": labels.tolist(), "categories": [*"wxyz"]})
        (tmp_path / f"{name}.json").write_text(text, "utf-8")
    seen, fit = [], symloss.SymNetClassifier.fit

    def noting(model, x, y, target):
        seen.append((len(x), len(y)))
        return fit(model, x, y, target)

    monkeypatch.setattr(symloss.SymNetClassifier, "fit", noting)
    quick = partial(symloss.SymNetClassifier, epochs=1, batch_size=8, prior=None)
    monkeypatch.setattr(symloss, "SymNetClassifier", quick)
    sources.main([str(tmp_path), "--seeds", "3"])
    rows = [*csv.DictReader(capsys.readouterr().out.splitlines())]
    assert [(row["target"], row["sources"]) for row in rows] == [
        *[("a", "b"), ("a", "c"), ("a", "b + c")],
        *[("b", "a"), ("b", "c"), ("b", "a + c")],
        *[("c", "a"), ("c", "b"), ("c", "a + b")],
    ]
    assert seen == [(40, 40), (40, 40), (80, 80)] * 3
