import csv
import math
import statistics
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import results  # noqa: E402


def test_the_page_holds_what_the_files_say(tmp_path):
    results.main(["--out", str(tmp_path)])
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    committed = ROOT / "docs" / "results"
    there = {path.name: path.read_text(encoding="utf-8") for path in committed.iterdir()}
    assert made == there


def test_the_page_shows_every_table():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
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


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.csv")), ids=lambda p: p.stem)
def test_no_path_of_a_machine_is_in_the_files(path):
    text = path.read_text(encoding="utf-8")
    assert not any(place in text for place in ("/work", "/root", "/home", "/tmp"))
