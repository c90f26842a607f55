"""benchmarks/field.py: what a row holds, what counts as a user's line, and where it continues."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="benchmarks/field.py needs scikit-learn")

import features
import field

RESULTS = Path(__file__).parents[2] / "results" / "field.csv"


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(field, "STEPS", 20)
    monkeypatch.setattr("symloss.estimator._STEPS", 20)
    monkeypatch.setattr("symloss.estimator._EPOCHS", 1)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path):
    rng, labels = np.random.default_rng(0), np.arange(160) % 4
    for i, name in enumerate(("amazon", "webcam")):
        rows = np.eye(4, 128)[labels] + 0.02 * rng.normal(size=(160, 128)) + 0.02 * i
        np.save(tmp_path / f"{name}.npy", rows.astype("float32"))
        about = {"labels": labels.tolist(), "categories": ["bike", "mug", "pen", "ruler"]}
        (tmp_path / f"{name}.json").write_text(json.dumps(about))
    return tmp_path


def read(path):
    with open(path, newline="") as file:
        return [*csv.DictReader(file)]


def test_a_stopped_run_continues_and_the_table_has_means_and_worst_tasks(folder, capsys):
    out = folder / "runs.csv"
    options = [str(folder), "--csv", str(out), "--kinds", "as it is", "uneven"]
    names = ["SymNetClassifier", "logistic regression"]
    field.main([*options, "--task", "a2w", "--methods", names[0]])
    first = out.read_text()
    capsys.readouterr()
    field.main([*options, "--methods", *names])
    assert out.read_text().startswith(first)
    runs = read(out)
    assert len(runs) == len({tuple(run[name] for name in field.KEY) for run in runs}) == 2 * 2 * 2
    header, _, *rows = [
        line.strip("| ").split(" | ")
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("|")
    ]
    assert header[1:4] == ["as it is: mean, %", "as it is: worst, %", "as it is: s"]
    assert [row[0] for row in rows] == names
    for row in rows:
        own = [r for r in runs if (r["method"], r["kind"]) == (row[0], "uneven")]
        accuracies = [float(run["accuracy"]) for run in own]
        assert row[4] == f"{np.mean(accuracies):.1f}"
        assert row[5] == f"{min(accuracies):.1f}"
    assert {run["package"].split()[0] for run in runs} == {"symloss", "scikit-learn"}


def test_the_accuracy_is_that_on_the_drawn_target(folder, monkeypatch):
    def three(source, labels, target, seed):
        return np.full(len(target), 3)

    monkeypatch.setitem(field.METHODS, "three", field.Method("scikit-learn", three))
    out = folder / "runs.csv"
    field.main([str(folder), "--csv", str(out), "--methods", "three", "--task", "a2w"])
    shown = {run["kind"]: float(run["accuracy"]) for run in read(out)}
    # Draw 0 of uneven thins two of four categories to 8 of 40 rows; of partial, it leaves two.
    assert shown["as it is"] == 25
    assert shown["uneven"] in (
        pytest.approx(100 * 40 / 96, rel=1e-4),
        pytest.approx(100 * 8 / 96, rel=1e-4),
    )
    assert shown["partial"] in (50, 0)


def test_the_import_of_a_package_is_not_timed(folder, monkeypatch):
    busy = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\n"
    (folder / "slow_package.py").write_text(busy)
    monkeypatch.syspath_prepend(folder)

    def run(source, labels, target, seed):
        import slow_package

        return np.full(len(target), bool(slow_package))

    monkeypatch.setitem(field.METHODS, "slow", field.Method("scikit-learn", run))
    monkeypatch.setitem(field.IMPORTS, "scikit-learn", ("slow_package",))
    out = folder / "runs.csv"
    field.main([str(folder), "--csv", str(out), "--methods", "slow", "--kinds", "as it is"])
    assert max(float(run["seconds"]) for run in read(out)) < 0.2


def test_a_missing_package_is_named(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "skada", None)
    out = folder / "runs.csv"
    field.main([str(folder), "--csv", str(out), "--methods", "CORAL"])
    assert "Not run: CORAL (" in capsys.readouterr().out
    assert read(out) == []


class Shown:
    """Three lines are left."""

    def scaled(self, value):
        """Return it.

        Twice.
        """

        return 2 * value


def shown(a, *, b):
    """Three lines are left."""
    c = a + b

    # A comment is a line.
    return c


def test_lines_are_a_functions_body_and_a_whole_class():
    assert field.lines(shown) == 3
    assert field.lines(Shown) == 3
    assert field.Method("x", shown, (Shown,)).lines == 6
    assert field.METHODS["SymNetClassifier"].lines == 3
    assert field.METHODS["CORAL"].lines == field.METHODS["optimal transport"].lines


def test_the_lines_of_the_results_are_those_of_the_script():
    assert {run["method"]: int(run["lines"]) for run in read(RESULTS)} == {
        name: field.METHODS[name].lines
        for name in dict.fromkeys(r["method"] for r in read(RESULTS))
    }


@pytest.mark.filterwarnings("ignore")  # of other packages' own affairs
@pytest.mark.parametrize("name", field.METHODS)
def test_every_method_tells_easy_categories_apart(folder, name, monkeypatch):
    monkeypatch.setattr(field, "STEPS", 200)  # pytorch-adapt learns slowly
    package = field.METHODS[name].package
    if package not in ("symloss", "scikit-learn"):
        pytest.importorskip("skada.deep" if package == "skada" else "pytorch_adapt.adapters")
    (x_s, y_s), (x_t, y_t) = (features.read(folder / f"{n}.npy") for n in ("amazon", "webcam"))
    predicted = field.METHODS[name].run(x_s, y_s, x_t, 0)
    assert np.mean(predicted == y_t) > 0.9
