"""The gallery shows every figure with its command, in colours that mean one thing."""

import re
import runpy
from pathlib import Path

import pytest
from office.results import colours

DOCS = Path(__file__).parents[2] / "docs"
FIGURES = DOCS / "figures"
GALLERY = (DOCS / "gallery.md").read_text(encoding="utf-8")
HOLDERS = [
    *FIGURES.glob("*.py"),
    *(DOCS.parent / "examples").rglob("*.py"),
    *(DOCS.parent / "benchmarks").glob("*.py"),
]


def test_every_figure_is_shown_once():
    pictures = sorted(path.name for path in FIGURES.iterdir() if path.suffix in (".png", ".svg"))
    assert sorted(re.findall(r"figures/(\S+\.(?:png|svg))$", GALLERY, re.MULTILINE)) == pictures


def test_every_command_is_a_script_and_every_script_has_its_command():
    commands = re.findall(r"^\$ python docs/figures/(\w+\.py)", GALLERY, re.MULTILINE)
    assert sorted(commands) == sorted(path.name for path in FIGURES.glob("*.py"))


def test_the_key_has_every_colour():
    key = dict(re.findall(r'color: (#\w+)">●</span>&nbsp;([\w ]+)', GALLERY))
    assert key == {
        colours.SOURCE: "source",
        colours.TARGET: "target",
        colours.SOURCE_ONLY: "source only",
        colours.SYMNETS: "SymNets",
        colours.BALANCED: "balanced",
    }


@pytest.mark.parametrize("path", HOLDERS, ids=lambda path: path.name)
def test_no_other_file_names_these_colours(path):
    own = [c for name, c in vars(colours).items() if name.isupper()]
    found = re.findall("|".join(own), path.read_text(encoding="utf-8"), re.IGNORECASE)
    assert not found or path.name == "colours.py"


def test_the_method_is_what_its_script_draws():
    script = runpy.run_path(str(FIGURES / "method.py"))
    for ending, ink in script["INK"].items():
        drawn = (FIGURES / f"method{ending}.svg").read_text(encoding="utf-8")
        assert drawn == script["draw"](ink)


@pytest.mark.parametrize("name", ["method", "losses", "gradient_routes"])
def test_the_words_of_a_drawing_are_legible_on_a_phone(name):
    """At least 12 pixels where the page is 390 wide, of which the text has 358."""
    drawn = (FIGURES / f"{name}.svg").read_text(encoding="utf-8")
    width = re.search(r'viewBox="0 0 (\d+) ', drawn)[1]
    sizes = [int(size) for size in re.findall(r'font-size[=:]"?(\d+)', drawn)]
    assert min(sizes) * 358 / int(width) >= 12
