"""benchmarks/features.py: every method sees the same, and is told from one that is missing."""

import csv
import itertools
import json
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="benchmarks/features.py needs scikit-learn")

import features


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(features, "STEPS", 20)
    monkeypatch.setitem(features.SEEDED, "SymNetClassifier()", features.ours(epochs=20))
    symnets = features.ours(objective="symnets", balance=0.0, epochs=20)
    monkeypatch.setitem(features.SEEDED, "SymNets without balance", symnets)


def test_quick_prints_the_table_and_what_is_missing(monkeypatch, capsys, tmp_path):
    for package in ("skada", "skada.deep", "pytorch_adapt", "pytorch_adapt.adapters"):
        monkeypatch.setitem(sys.modules, package, None)
    out = tmp_path / "table.md"
    lines = tmp_path / "runs.csv"
    features.main(["--quick", "--seeds", "0", "1", "--out", str(out), "--csv", str(lines)])
    text = capsys.readouterr().out
    assert out.read_text(encoding="utf-8") == text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == [
        "logistic regression on the source",
        "MCC, lines of this script",
        "SymNets without balance",
        "SymNetClassifier()",
    ]
    for row in rows[2:]:
        assert all(0 <= float(cell.split()[0]) <= 100 for cell in row[1:3])
    assert text.count("Not run: ") == 5
    assert text.count("Best from ") == 2
    with open(lines, encoding="utf-8") as file:
        found = [*csv.DictReader(file)]
    assert len(found) == 2 * (1 + 3 * 2)  # logistic regression has no seed
    mcc = [line for line in found if line["method"] == "MCC, lines of this script"]
    assert [(line["source"], line["seed"]) for line in mcc] == [
        ("made source", "0"),
        ("made source", "1"),
        ("made target", "0"),
        ("made target", "1"),
    ]
    mean = sum(float(line["accuracy"]) for line in mcc[:2]) / 2
    (row,) = (row for row in rows if row[0] == "MCC, lines of this script")
    assert row[1].startswith(f"{mean:.1f}")


def test_three_domains_have_six_ways_and_a_mean():
    runs = [
        features.Run(source, target, "method", seed, accuracy, 1.0)
        for accuracy, (source, target) in enumerate(itertools.permutations("abc", 2))
        for seed in (0, 1)
    ]
    (header, row), notes = features.table(runs)
    assert header[1:] == [f"{a} to {b}: %" for a, b in ("ab", "ac", "ba", "bc", "ca", "cb")] + [
        "mean",
        "seconds",
    ]
    assert row[-2:] == ["2.5", "1.0 to 1.0"]
    assert len(notes) == 6


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("skada", "CORAL, skada"),
        ("skada", "TCA, skada"),
        ("skada", "optimal transport, skada"),
        ("skada.deep", "MCC, skada"),
        ("pytorch_adapt.adapters", "SymNets, pytorch-adapt"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_the_methods_of_other_packages_learn(package, name):
    pytest.importorskip(package, exc_type=ImportError)
    (source, labels), (target, wanted) = features.made().values()
    method = (features.SEEDLESS | features.SEEDED)[name]
    assert np.mean(method(source, labels, target, 0) == wanted) > 0.9


def test_class_confusion_is_that_of_the_paper():
    logits = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = np.exp(logits.numpy() / 2.5)
    p /= p.sum(1, keepdims=True)  # eq. (1)
    weight = 1 + np.exp((p * np.log(p)).sum(1))  # eqs. (3) and (4)
    weight *= len(p) / weight.sum()
    confusion = np.einsum("i,ij,ik->jk", weight, p, p)  # eq. (2)
    confusion /= confusion.sum(1, keepdims=True)  # eq. (5)
    expected = (confusion.sum() - np.trace(confusion)) / 4  # eq. (6)
    assert features.class_confusion(logits).item() == pytest.approx(expected)


def test_both_kinds_of_files_are_read(tmp_path):
    rng = np.random.default_rng(0)
    views, labels = rng.normal(size=(6, 2, 3)).astype("float16"), [0, 1, 2, 0, 1, 2]
    np.save(tmp_path / "a.npy", views)
    (tmp_path / "a.json").write_text(json.dumps({"labels": labels}))
    np.savez(tmp_path / "b.npz", features=views.astype("float32").mean(1), labels=labels)
    found = [features.read(tmp_path / name) for name in ("a.npy", "b.npz")]
    expected = views.astype("float64").mean(1)
    expected /= np.sqrt((expected**2).sum(1, keepdims=True))
    for rows, named in found:
        np.testing.assert_allclose(rows, expected, rtol=1e-3, atol=1e-3)
        assert rows.dtype == np.float32
        assert named.tolist() == labels


def test_unreadable_or_too_few_files_exit_with_one_line(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", embeddings=np.zeros((2, 2)))
    with pytest.raises(SystemExit, match=r"features.py: error: .*a.npz: .*features"):
        features.main([str(tmp_path / "a.npz"), str(tmp_path / "a.npz")])
    np.savez(tmp_path / "a.npz", features=np.ones((2, 2)), labels=[0, 1])
    with pytest.raises(SystemExit):
        features.main([str(tmp_path / "a.npz"), str(tmp_path / "a.npz")])
    assert "files must have names of their own, got" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        features.main([str(tmp_path / "a.npz")])
    assert "files of two or more domains must be given, got 1" in capsys.readouterr().err
