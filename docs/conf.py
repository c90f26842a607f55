"""Sphinx configuration: ``sphinx-build -W -n -b html docs docs/_build/html``."""

import os

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.ext import autosummary

import symloss

project = "symloss"
author = "The symloss authors"
copyright = "2026, The symloss authors"
version = release = symloss.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"symloss {release}"
html_static_path = ["_static"]
html_css_files = ["symloss.css"]
html_copy_source = False
html_math_renderer = "mathml"

autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
maximum_signature_line_length = 80
napoleon_custom_sections = ["Shape"]
napoleon_use_ivar = True
napoleon_use_rtype = False

# "eq. (5)" does not end a summary.
autosummary.WELL_KNOWN_ABBREVIATIONS += ("eq.",)

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# The docstrings' examples stand in their module, whose imports and public names they use.
doctest_global_setup = """
import torch
from torch import nn
from symloss import *
from symloss.functional import *
from symloss.scores import *
"""

# Names of torch and Python are links where the build may use the network.
nitpick_ignore_regex = [("py:.*", r"(torch|collections|optional)\b.*")]
if "READTHEDOCS" in os.environ:
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }


def visit_math(self, node):
    """Write an equation as MathML, which browsers draw without a script or a network."""
    mathml = tex2mathml(node.astext())
    mathml = mathml.replace("&ApplyFunction;</mo>", '&ApplyFunction;</mo><mspace width="0.17em"/>')
    if isinstance(node, nodes.math_block):
        mathml = mathml.replace("<math", '<math display="block"', 1)
        mathml = f'<div class="equation">{mathml}</div>'
    self.body.append(mathml)
    raise nodes.SkipNode


def setup(app):
    """Register the renderer of equations."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
