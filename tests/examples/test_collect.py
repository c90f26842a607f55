import csv
import json
import math
from pathlib import Path

import collect
import numpy as np
import pytest
from made_results import CATEGORIES, made_result
from office.console import UserError
from office.results import outputs
from office.results.outputs import Features


def features(logits, label):
    n = len(label)
    domain = np.repeat([0, 1], [4, n]).astype(np.uint8)
    labels = np.concatenate([np.zeros(4), label]).astype(np.int16)
    rows = np.zeros((4 + n, 2), np.float16)
    return Features(rows, domain, labels, np.asarray(logits, np.float32))


# Six images of three categories: C^s is right everywhere, C^t on four.
SOURCE = 4 * np.eye(3)[[0, 0, 1, 1, 2, 2]]
TARGET = 5 * np.eye(3)[[0, 1, 1, 1, 2, 0]]
LABELS = np.array([0, 0, 1, 1, 2, 2])


def joint_run():
    final = {"target_accuracy/C_t": 66.7, "target_accuracy/C_s": 100.0}
    recalls = dict(zip(CATEGORIES, [50.0, 100.0, None], strict=True))
    result = made_result(final=final, per_category=recalls)
    return collect.record(result, features(np.hstack([SOURCE, TARGET]), LABELS))


def test_accuracies_are_those_of_each_classifier():
    run = joint_run()
    assert run["c_s"] == 100
    assert run["c_t"] == 66.7
    assert run["joint"] == pytest.approx(100 * 4 / 6)  # 5 outweighs 4
    assert run["agreement"] == pytest.approx(100 * 4 / 6, rel=1e-6)
    assert (run["worst_category"], run["worst_recall"]) == ("bike", 50.0)


def test_one_classifier_has_no_agreement():
    run = collect.record(made_result(method="source-only"), features(TARGET, LABELS))
    assert (run["c_s"], run["agreement"]) == (None, None)
    assert run["joint"] == pytest.approx(100 * 4 / 6)


def test_an_unlabelled_target_has_scores_but_no_accuracy():
    run = collect.record(
        made_result(accuracy=None), features(np.hstack([SOURCE, TARGET]), -np.ones(6))
    )
    assert run["accuracy"] is run["joint"] is run["calibration_error"] is None
    assert math.isfinite(run["information_maximization"])
    assert run["agreement"] == pytest.approx(100 * 4 / 6, rel=1e-6)


def write_run(folder, seed=0):
    folder.mkdir(parents=True)
    outputs.write_result(folder, made_result(seed=seed))
    outputs.write_features(folder, features(np.hstack([SOURCE, TARGET]), LABELS))


def test_the_file_has_a_line_for_each_run(tmp_path):
    for seed in (1, 0):
        write_run(tmp_path / "runs" / f"seed{seed}", seed)
    out = tmp_path / "results" / "some.csv"
    collect.main([str(tmp_path / "runs"), "--out", str(out)])
    with open(out, newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["seed"] for row in rows] == ["0", "1"]
    with open(Path(__file__).parents[2] / "results" / "frozen.csv", newline="") as committed:
        assert [*rows[0]] == next(csv.reader(committed))
    assert float(rows[0]["joint"]) == pytest.approx(100 * 4 / 6, rel=1e-5)
    assert json.loads(rows[0]["settings"])["batch_size"] == 8


def test_a_run_that_is_found_twice_counts_once(tmp_path, capsys):
    write_run(tmp_path / "runs" / "seed0")
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    twice = [tmp_path / "runs", tmp_path / "runs", tmp_path / "runs/seed0", tmp_path / "link"]
    collect.main([*map(str, twice), "--out", "-"])
    lines = capsys.readouterr().out.splitlines()
    assert len([*csv.DictReader(lines)]) == 1


def test_the_file_behind_a_link_is_written(tmp_path):
    write_run(tmp_path / "runs" / "seed0")
    (tmp_path / "a.csv").symlink_to(tmp_path / "real.csv")
    collect.main([str(tmp_path / "runs"), "--out", str(tmp_path / "a.csv")])
    assert (tmp_path / "a.csv").is_symlink()
    assert len((tmp_path / "real.csv").read_text().splitlines()) == 2


def test_without_logits_the_accuracies_are_left(tmp_path):
    write_run(tmp_path / "seed0")
    (tmp_path / "seed0" / "features.npz").unlink()
    collect.main([str(tmp_path), "--out", str(tmp_path / "a.csv")])
    with open(tmp_path / "a.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["accuracy"], row["agreement"], row["corr_c"]) == ("90", "", "")


def test_a_folder_without_runs_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        collect.main([str(tmp_path), "--out", str(tmp_path / "a.csv")])
    assert not (tmp_path / "a.csv").exists()
