"""README and first page: the same table, of the results file; links for whoever publishes."""

import csv
import re
import runpy
import shutil
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIRST_PAGES = [ROOT / "README.md", ROOT / "docs" / "index.md"]
TARGETS = {"all categories": "as it is", "uneven": "uneven", "partial": "partial"}
METHODS = ("source only", "SymNets", "estimated shares")


def means(kind, method):
    """Of the six tasks, and of those but A→W; of partial targets, the usual ten categories."""
    with open(ROOT / "results" / "shares.csv", encoding="utf-8", newline="") as file:
        rows = [
            row for row in csv.DictReader(file) if (row["kind"], row["method"]) == (kind, method)
        ]
    if kind == "partial":
        rows = [row for row in rows if row["draw"] == "0"]
    others = [row for row in rows if (row["source"], row["target"]) != ("amazon", "webcam")]
    return [statistics.fmean(float(row["accuracy"]) for row in some) for some in (rows, others)]


@pytest.mark.parametrize("page", FIRST_PAGES, ids=lambda page: page.name)
def test_the_table_holds_the_means_of_the_results_file(page):
    text = page.read_text(encoding="utf-8")
    for name, kind in TARGETS.items():
        (line,) = re.findall(rf"^\| {name}\b.*\|$", text, re.MULTILINE)
        cells = ["{:.1f} ({:.1f})".format(*means(kind, method)) for method in METHODS]
        assert line.strip("| ").split(" | ")[1:] == cells
    strongest = [f"{means(kind, 'MCC')[0]:.1f}" for kind in TARGETS.values()]
    assert "reaches {}, {} and {} %".format(*strongest) in text.replace("\n", " ")


def test_both_tables_are_one():
    tables = [
        re.findall(r"^\| .*Office-31.*|^\| (?:all|uneven|partial).*", p.read_text("utf-8"), re.M)
        for p in FIRST_PAGES
    ]
    assert len(tables[0]) == 4
    assert tables[0] == tables[1]


def test_a_package_index_shows_no_picture():
    tomllib = pytest.importorskip("tomllib", reason="of Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (rule,) = project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]
    readme = FIRST_PAGES[0].read_text("utf-8")
    shown = re.sub(rule["pattern"], rule["replacement"], readme)
    assert "docs/figures" in readme
    assert "docs/figures" not in shown
    assert "MIT licence\n\n| Target accuracy" in shown


@pytest.mark.parametrize("published", [False, True])
def test_pages_can_be_edited_if_the_repository_is_named(published, tmp_path, monkeypatch):
    """The configuration beside a pyproject.toml, as it is and as a publisher completes it."""
    pytest.importorskip("sphinx")
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("MATPLOTLIBRC", "")  # which the configuration sets
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    if published:
        text = text.replace("# [project.urls]", "[project.urls]").replace("# Repo", "Repo")
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    (tmp_path / "docs").mkdir()
    conf = shutil.copy(ROOT / "docs" / "conf.py", tmp_path / "docs")
    options = runpy.run_path(conf).get("html_theme_options", {})
    repository = "https://github.com/..." if published else None
    assert options.get("source_repository") == repository
