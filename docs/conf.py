"""The configuration of the site, which `make docs` builds."""

import re
import sys
from pathlib import Path

import ebflow

sys.path.insert(0, str(Path(__file__).parent))
from options import Options  # noqa: E402

project, author = "ebflow", "the ebflow authors"
release = ebflow.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
html_theme = "furo"
html_title = f"ebflow {release}"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_use_ivar = True
exclude_patterns = ["_build"]


def _escape(app, what, name, obj, options, lines):  # noqa: ANN001, ANN202
    """Shapes such as (*batch, D) are no emphasis, and |det W| is no substitution."""
    lines[:] = [
        "`".join(part if k % 2 else _plain(part) for k, part in enumerate(line.split("`")))
        for line in lines
    ]


def _plain(text):  # noqa: ANN001, ANN202
    return re.sub(r"(?<![*\\\w])\*(?=\w|\))|(?<!\\)\|", lambda found: "\\" + found[0], text)


def setup(app) -> None:  # noqa: ANN001
    app.add_directive("options", Options)
    app.connect("autodoc-process-docstring", _escape)
