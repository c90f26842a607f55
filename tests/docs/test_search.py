"""The site's search finds a pasted message, with its values, among the terms of messages.md."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
# The search page's scripts outside a browser, then the first result of each query.
PAGE = """
const window = globalThis;
const document = {{getElementById: () => null}};
const localStorage = {{setItem() {{}}, removeItem() {{}}}};
const SPHINX_HIGHLIGHT_ENABLED = true;
const _ready = () => {{}};
{scripts}
const results = {queries}.map((q) => Search._performSearch(...Search._parseQuery(q)).at(-1));
console.log(JSON.stringify(results));
"""
# A message as it is printed, and how the anchor of its term begins.
PASTED = {
    "AttributeError: 'Linear' object has no attribute 'route'": "AttributeError-Linear-object",
    "TypeError: source must be RoutedLogits, got Tensor; call head.route(features), or "
    "symloss.route(head, features) for a wrapped head": "source-must-be-RoutedLogits-got-Tensor",
    "ValueError: features must have shape (N, 2048), got (32, 512, 7, 7); call "
    "features.flatten(1)": "features-must-have-shape-N-...-got-...-call-features.flatten",
    "train_office.py: error: unrecognized arguments: --epoch 3": "error-unrecognized-arguments",
}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Build a site of three pages, configured as the real one; return what it finds first."""
    for package in ("furo", "myst_nb", "sphinx", "sphinx_copybutton"):
        pytest.importorskip(package)
    if not (node := shutil.which("node")):
        pytest.skip("needs node")
    source, out = tmp_path_factory.mktemp("docs"), tmp_path_factory.mktemp("html")
    pages = ("messages", "faq", "changelog")
    for page in pages[:2]:
        shutil.copy(DOCS / f"{page}.md", source)
    (source / "changelog.md").write_text("# Which settings matter?", encoding="utf-8")
    toctree = "\n".join(["# Site", "```{toctree}", *pages, "```", ""])
    (source / "index.md").write_text(toctree, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-Q", "-c", str(DOCS), str(source), str(out)]
    subprocess.run(command, check=True)
    names = "_static/searchtools.js", "_static/language_data.js", "searchindex.js"
    scripts = "\n".join((out / name).read_text(encoding="utf-8") for name in names)

    def search(queries):
        script = PAGE.format(scripts=scripts, queries=json.dumps(queries))
        done = subprocess.run([node, "-"], input=script, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return search


@pytest.mark.slow
def test_a_pasted_message_leads_to_its_term(first):
    for (page, _, anchor, *_), term in zip(first([*PASTED]), PASTED.values(), strict=True):
        assert page == "messages"
        assert anchor.startswith(f"#term-{term}")


@pytest.mark.slow
def test_other_words_lead_to_other_pages(first):
    (result,) = first(["which settings matter"])
    assert result[0] == "faq"
