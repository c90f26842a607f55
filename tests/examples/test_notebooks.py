"""Every notebook runs from top to bottom, and is kept without outputs."""

import json
import os
import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def execute(path, tmp_path):
    """Run a notebook in its folder; return it with its outputs."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources=resources
    )
    environment = os.environ | {"IPYTHONDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    return client.execute(env=environment)


def printed(notebook):
    """Return all that the cells print."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
def test_the_digits_notebook_adapts(tmp_path):
    text = printed(execute(EXAMPLES / "digits_demo.ipynb", tmp_path))
    source_only, _, balanced = (
        float(line.split("%")[0].split()[-1]) for line in text.splitlines() if "worst digit" in line
    )
    assert balanced > source_only + 10
    assert "classifiers agree on" in text


@pytest.mark.slow
def test_the_features_notebook_adapts(tmp_path):
    text = printed(execute(EXAMPLES / "features_demo.ipynb", tmp_path))
    source_only, adapted = (
        float(re.search(rf"^{name}: ([\d.]+)%", text, re.MULTILINE)[1])
        for name in ("logistic regression", "SymNetClassifier")
    )
    assert adapted > source_only + 10
    assert "classifiers agree on" in text
