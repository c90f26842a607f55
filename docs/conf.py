"""Sphinx configuration: ``sphinx-build -W -n -b html docs docs/_build/html``."""

import json
import os
import re
from pathlib import Path

import matplotlib.font_manager  # noqa: F401 - lists the fonts now, not in the output of a notebook
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.ext import autosummary

import symloss

project = "symloss"
author = "The symloss authors"
copyright = "2026, The symloss authors"
version = release = symloss.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "recipes/_*.md", "results/*"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

# Notebooks run when their pages are built, once for all builders, and must not write to stderr.
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_output_stderr = "warn"
nb_merge_streams = True
os.environ["MATPLOTLIBRC"] = str(Path(__file__).parent / "figures" / "notebook.mplstyle")

html_theme = "furo"
PYPROJECT = Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8")
REPOSITORY = re.search(r'^Repository = "(.+)"', PYPROJECT, re.MULTILINE)  # under [project.urls]
if REPOSITORY:  # a link to edit each page
    html_theme_options = {
        "source_repository": REPOSITORY[1],
        "source_branch": "main",
        "source_directory": "docs/",
    }
html_title = f"symloss {release}"
html_static_path = ["_static"]
html_css_files = ["symloss.css"]
html_favicon = "_static/favicon.svg"
html_logo = "_static/logo.svg"
pygments_dark_style = "gruvbox-dark"  # nothing in it is blue like links
html_copy_source = False
html_search_scorer = str(Path(__file__).with_name("search.js"))
html_math_renderer = "mathml"

autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
maximum_signature_line_length = 80
napoleon_custom_sections = ["Shape"]
napoleon_use_ivar = True
napoleon_use_rtype = False

# "eq. (5)" does not end a summary.
autosummary.WELL_KNOWN_ABBREVIATIONS += ("eq.",)

toc_object_entries_show_parents = "hide"  # longer names would wrap

copybutton_line_continuation_character = "\\"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Names from torch and Python become links if the build may use the network.
nitpick_ignore_regex = [("py:.*", r"(torch|optional|collections)\b.*")]
if "READTHEDOCS" in os.environ:
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }


def show_imports(app, what, name, obj, options, lines):
    """Begin a docstring's example with the imports that its module has."""
    first = next((i for i, line in enumerate(lines) if line.startswith(">>>")), None)
    if first is None:
        return
    example = "\n".join(lines[first:])
    imports = []
    if re.search(r"\btorch\.", example):
        imports.append("import torch")
    if re.search(r"\bnn\.", example):
        imports.append("from torch import nn")
    for module in (symloss, symloss.functional, symloss.scores, symloss.diagnostics):
        used = [n for n in module.__all__ if re.search(rf"(?<![\w.]){n}\(", example)]
        if used:
            imports.append(f"from {module.__name__} import {', '.join(used)}")
    lines[first:first] = [f">>> {line}" for line in imports if line not in example]


def keep_underscores(app, what, name, obj, options, lines):
    """Keep the underscore at the end of an attribute's name, which marks a reference in RST."""
    lines[:] = [re.sub(r"^:(ivar|vartype) (\w+)_:", r":\1 \2\\_:", line) for line in lines]


def add_download(app, docname, source):
    """Put a link to a notebook's file below its title."""
    if docname.startswith("notebooks/") and docname != "notebooks/index":
        notebook = json.loads(source[0])
        link = f"{{download}}`Download this notebook <{Path(docname).name}.ipynb>`"
        notebook["cells"][0]["source"].insert(1, f"\n{link}\n")
        source[0] = json.dumps(notebook)


def visit_math(self, node):
    """Write an equation as MathML, which browsers render without a script or a network."""
    mathml = tex2mathml(node.astext())
    mathml = mathml.replace("&ApplyFunction;</mo>", '&ApplyFunction;</mo><mspace width="0.17em"/>')
    if isinstance(node, nodes.math_block):
        mathml = mathml.replace("<math", '<math display="block"', 1)
        mathml = f'<div class="equation">{mathml}</div>'
    self.body.append(mathml)
    raise nodes.SkipNode


def setup(app):
    """Register the functions above."""
    app.connect("source-read", add_download)
    for change in (show_imports, keep_underscores):
        app.connect("autodoc-process-docstring", change, priority=600)  # after napoleon
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
