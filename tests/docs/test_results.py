import csv
import math
import statistics
from pathlib import Path

import pytest

import results

ROOT = Path(__file__).parents[2]
METHODS = ("source-only", "symnets", "symnets-balanced")


def test_the_page_holds_what_the_files_say(tmp_path):
    results.main(["--out", str(tmp_path)])
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    committed = ROOT / "docs" / "results"
    there = {path.name: path.read_text(encoding="utf-8") for path in committed.iterdir()}
    assert made == there


def test_a_page_shows_every_table():
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "recipes").glob("*.md")]
    page = "".join(path.read_text(encoding="utf-8") for path in pages)
    for name in results.TABLES:
        assert f"results/_{name}.md" in page


def test_a_cell_is_the_mean_over_seeds_with_its_standard_error():
    with open(ROOT / "results" / "frozen.csv", newline="") as file:
        rows = [r for r in csv.DictReader(file) if (r["task"], r["method"]) == ("W2A", "symnets")]
    values = [float(row["accuracy"]) for row in rows]
    assert len(values) == 3
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(3)
    assert results.cell(values).split() == [f"{mean:.1f}", "±", f"{error:.1f}"]
    table = (ROOT / "docs" / "results" / "_frozen.md").read_text(encoding="utf-8")
    (line,) = (line for line in table.splitlines() if line.startswith("| SymNets |"))
    assert line.split(" | ")[6] == results.cell(values)


def test_office_caltech_has_a_column_for_each_network_and_method():
    """A cell of each network, and the two averages, against the file itself."""
    with open(ROOT / "results" / "office_caltech10.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if '"prior": [' not in row["settings"]]
    lines = (ROOT / "docs" / "results" / "_caltech.md").read_text(encoding="utf-8").splitlines()
    table = {cells[0]: cells[1:] for cells in (line.strip("| ").split(" | ") for line in lines)}
    assert len(table) == 2 + 12 + 3
    columns = [(n, m) for n in ("resnet50_v1", "mobilenet_v2") for m in METHODS]
    for i, (network, method) in enumerate(columns):
        own = [r for r in rows if r["method"] == method and f'"{network}"' in r["settings"]]
        assert len(own) == 36
        values = [float(row["accuracy"]) for row in own if row["task"] == "D2C"]
        assert table["D→C"][i].split()[0] == f"{statistics.fmean(values):.1f}"
        assert table["Avg"][i] == f"{statistics.fmean(float(r['accuracy']) for r in own):.1f}"
        others = [float(row["accuracy"]) for row in own if row["task"] != "A2W"]
        assert table["without dev."][i] == f"{statistics.fmean(others):.1f}"
        worst = [float(row["worst_recall"]) for row in own]
        assert table["worst category, avg"][i] == f"{statistics.fmean(worst):.1f}"


def test_runs_with_known_shares_stand_in_a_table_of_their_own():
    with open(ROOT / "results" / "office_caltech10.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if '"prior": [' in row["settings"]]
    lines = (ROOT / "docs" / "results" / "_prior.md").read_text(encoding="utf-8").splitlines()
    for network, name in (("resnet50_v1", "ResNet-50"), ("mobilenet_v2", "MobileNetV2")):
        (line,) = (line for line in lines if line.startswith(f"| {name}, DSLR's shares"))
        for task, shown in zip(("A2D", "C2D"), line.strip("| ").split(" | ")[1:], strict=True):
            own = [r for r in rows if r["task"] == task and f'"{network}"' in r["settings"]]
            mean = statistics.fmean(float(row["accuracy"]) for row in own)
            assert len(own) == 3
            assert shown.split()[0] == f"{mean:.1f}"


def read(name):
    with open(ROOT / "results" / f"{name}.csv", encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def cells(name, row):
    """A table's cells in the row of this name."""
    table = (ROOT / "docs" / "results" / f"_{name}.md").read_text(encoding="utf-8")
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {row} |"))
    return line.strip("| ").split(" | ")[1:]


def test_means_without_the_development_task_leave_out_a_to_w():
    own = [r for r in read("frozen") if r["method"] == "symnets" and r["task"] != "A2W"]
    worst, accuracy = (
        statistics.fmean(float(r[name]) for r in own) for name in ("worst_recall", "accuracy")
    )
    assert cells("classifiers", "SymNets")[-1].endswith(f" ({worst:.1f})")
    assert cells("order", "SymNets w/o confusion < SymNets")[1].endswith(f", {accuracy:.1f}")
    caltech = [r for r in read("shares_caltech10") if r["method"] == "true shares"]
    others = [float(r["accuracy"]) for r in caltech if (r["source"], r["target"]) != results.DEV]
    assert len(others) == 11
    assert cells("shares_caltech10", "without dev.")[-1] == f"{statistics.fmean(others):.1f}"
    uneven = [
        r
        for r in read("shares")
        if r["kind"] == "uneven" and (r["source"], r["target"]) != results.DEV
    ]
    estimated, v2 = (
        [r for r in uneven if r["method"] == m] for m in ("estimated shares", "SymmNets-V2")
    )
    gain = statistics.fmean(float(r["accuracy"]) for r in estimated)
    gain -= statistics.fmean(float(r["accuracy"]) for r in v2)
    assert cells("shares_paired", "SymmNets-V2, no balance")[3].endswith(f" ({gain:.1f})")
    error = statistics.fmean(float(r["error"]) for r in estimated)
    assert cells("shares_errors", "uneven")[0].endswith(f" ({error:.2f})")


@pytest.mark.parametrize("name", ["frozen", "partial", "long", "features", "shares", "novelty"])
def test_means_over_tasks_are_of_the_same_seeds(name):
    groups = {}
    for run in read(name):
        task = run.get("task") or (run["source"], run["target"])
        kind = run.get("kind"), run.get("draw"), run.get("settings")
        groups.setdefault((run["method"], *kind), {}).setdefault(task, set()).add(run["seed"])
    for tasks in groups.values():
        assert len({frozenset(seeds) for seeds in tasks.values()}) == 1


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.csv")), ids=lambda p: p.stem)
def test_no_path_of_a_machine_is_in_the_files(path):
    text = path.read_text(encoding="utf-8")
    assert not any(place in text for place in ("/work", "/root", "/home", "/tmp"))
