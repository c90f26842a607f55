"""The site builds, every code block of it runs, and every public name is on it.

How a page of ``docs/`` is run: from top to bottom, in one namespace, in an empty folder.

- Fences marked ``python`` are run.
- ``<!-- setup``, lines of Python, ``-->`` is run in its place and not shown.
- ``<!-- needs: MODULE -->`` skips what follows on the page where MODULE is not installed.
- Fences marked ``console``, ``text`` or ``bibtex`` are not run; directives, ``{...}``, neither.
  There are no others. A fence with Python stands at the beginning of its line.
"""

import importlib.util
import os
import re
import runpy
import subprocess
import sys
from dataclasses import is_dataclass
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import symloss

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)
BLOCK = re.compile(
    r"^```python\n(?P<python>.*?)^```$"
    r"|^<!-- setup\n(?P<setup>.*?)^-->$"
    r"|^<!-- needs: (?P<needs>\S+) -->$",
    re.DOTALL | re.MULTILINE,
)
FENCE = re.compile(r"^[ >]*(?:`{3,}|~{3,}|:{3,})[ ]*(?P<mark>\S.*)$", re.MULTILINE)

PUBLIC = {f"symloss.{name}": getattr(symloss, name) for name in symloss.__all__}
for module in ("functional", "scores"):
    of_module = PUBLIC.pop(f"symloss.{module}")
    PUBLIC |= {f"symloss.{module}.{name}": getattr(of_module, name) for name in of_module.__all__}
# They take no tensor but scalars and parameters.
WITHOUT_SHAPES = {
    "symloss.AnnealedLR",
    "symloss.SymNetLosses",
    "symloss.SymNetV2Losses",
    "symloss.TwoOptimizerStep",
    "symloss.parameter_groups",
    "symloss.progressive_lambda",
    "symloss.scores.Diagnosis",
}
# Two have none, the others' stand at SymNetLosses and SymNetV2Losses.
WITHOUT_EQUATION = {
    "symloss.RoutedLogits",
    "symloss.scores.Diagnosis",
    "symloss.symnet_losses",
    "symloss.symnet_v2_losses",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    text = page.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        if block["needs"]:
            if importlib.util.find_spec(block["needs"]) is None:
                pytest.skip(f"needs {block['needs']}")
            continue
        kind = "python" if block["python"] is not None else "setup"
        above = "\n" * text.count("\n", 0, block.start(kind))
        exec(compile(above + block[kind], str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_no_code_of_a_page_escapes(page):
    text = page.read_text(encoding="utf-8")
    for mark in FENCE.finditer(text):
        assert re.fullmatch(r"python|console|text|bibtex|\{[\w-]+\}.*", mark["mark"]), mark[0]
    blocks = list(BLOCK.finditer(text))
    assert sum(block["python"] is not None for block in blocks) == text.count("```python")
    assert sum(block["setup"] is not None for block in blocks) == text.count("<!-- setup")
    assert sum(block["needs"] is not None for block in blocks) == text.count("<!-- needs")


FOREVER = re.compile(r"^def forever\(.*?(?=^\S)", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [p for p in PAGES if FOREVER.search(p.read_text("utf-8"))])
def test_a_loop_over_an_empty_loader_ends_with_words(page):
    names = {}
    exec(FOREVER.search(page.read_text("utf-8"))[0], names)
    loader = torch.utils.data.DataLoader(range(10), batch_size=16, drop_last=True)
    with pytest.raises(ValueError, match="no batch: 10 images, drop_last=True"):
        next(names["forever"](loader))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_docstring_is_whole(name):
    doc = PUBLIC[name].__doc__
    assert ".. math::" in doc or name in WITHOUT_EQUATION
    assert re.search(r"``\((N|M), ", doc) or name in WITHOUT_SHAPES
    assert "Example:\n" in doc
    assert ">>> " in doc
    assert "Raises:\n" in doc or is_dataclass(PUBLIC[name]) or issubclass(PUBLIC[name], tuple)


def test_the_drawing_is_what_its_script_draws():
    script = DOCS / "figures" / "gradient_routes.py"
    assert script.with_suffix(".svg").read_text(encoding="utf-8") == (
        runpy.run_path(str(script))["draw"]()
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site without a network, every warning an error."""
    for package in ("furo", "myst_parser", "sphinx", "sphinx_copybutton"):
        pytest.importorskip(package)
    out = tmp_path_factory.mktemp("html")
    environment = {k: v for k, v in os.environ.items() if k != "READTHEDOCS"}
    options = ["-W", "--keep-going", "-n", "-q", "-E", "-b", "html", "-d", str(out / ".doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_every_public_name_is_on_an_api_page(site):
    from sphinx.util.inventory import InventoryFile

    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    listed = {
        name: item.uri
        for kind in ("py:class", "py:function")
        for name, item in inventory.data[kind].items()
    }
    for name in PUBLIC:
        assert listed[name].startswith("api/")


class Outline(HTMLParser):
    """What a reader without a screen depends on: levels of headings, and texts of images."""

    def __init__(self):
        super().__init__()
        self.levels = []
        self.images = []

    def handle_starttag(self, tag, attrs):
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "img":
            self.images.append(dict(attrs).get("alt"))


def test_headings_are_in_order_and_images_have_texts(site):
    for page in PAGES:
        built = (site / page.relative_to(DOCS)).with_suffix(".html")
        outline = Outline()
        outline.feed(built.read_text(encoding="utf-8"))
        assert outline.levels.count(1) == 1, page
        assert all(below <= above + 1 for above, below in pairwise([0, *outline.levels])), page
        assert all(outline.images), page
