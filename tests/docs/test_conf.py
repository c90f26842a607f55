"""What docs/conf.py does to docstrings."""

import runpy
from pathlib import Path

import pytest

CONF = Path(__file__).parents[2] / "docs" / "conf.py"
FIELDS = """\
:ivar classes_: The categories; see ``prior_``.
:vartype trust_: float
:ivar history: Losses.
"""


@pytest.fixture
def conf(monkeypatch):
    for package in ("furo", "matplotlib", "sphinx"):
        pytest.importorskip(package)
    monkeypatch.setenv("MATPLOTLIBRC", "")  # which the configuration sets
    return runpy.run_path(str(CONF))


def read(lines):
    """Return the names of the fields that docutils reads, and whether it complained."""
    core = pytest.importorskip("docutils.core")
    nodes = pytest.importorskip("docutils.nodes")
    quiet = {"report_level": 5}
    document = core.publish_doctree("\n".join(lines), settings_overrides=quiet)
    names = [node.astext() for node in document.findall(nodes.field_name)]
    return names, bool([*document.findall(nodes.problematic)])


def test_an_underscore_at_the_end_of_a_name_is_no_reference(conf):
    lines = FIELDS.splitlines()
    assert read(lines)[1]
    conf["keep_underscores"](None, "class", "Model", None, None, lines)
    assert read(lines) == (["ivar classes_", "vartype trust_", "ivar history"], False)
