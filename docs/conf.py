"""The configuration of the site, which `make docs` builds."""

import re
import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx import addnodes

import ebflow

sys.path.insert(0, str(Path(__file__).parent))
from options import Options  # noqa: E402

project, author = "ebflow", "the ebflow authors"
release = ebflow.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"ebflow {release}"
html_math_renderer = "mathml"

myst_enable_extensions = ["deflist", "dollarmath"]
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


def _math(display):  # noqa: ANN001, ANN202
    """Returns the visitor of a formula, which writes MathML: browsers show it without a script."""

    def visit(writer, node) -> None:  # noqa: ANN001
        formula = convert(node.astext(), display=display)
        # A function's name and its argument would touch, as in "logp".
        writer.body.append(re.sub("(<mi>[a-z]{2,}</mi>)", r'\1<mspace width="0.17em" />', formula))
        raise nodes.SkipNode

    return visit


def _write_index(app, exception) -> None:  # noqa: ANN001
    """Writes ``llms.txt``: the titles and addresses of all pages, by their captions."""
    if exception or app.builder.format != "html":
        return
    found = app.env
    lines = [f"# ebflow {release}", "", "> Learns the density of a table or of images.", ""]
    for tree in found.tocs["index"].findall(addnodes.toctree):
        lines += [f"## {tree['caption']}", ""]
        lines += [f"- [{found.titles[page].astext()}]({page}.html)" for _, page in tree["entries"]]
        lines.append("")
    (Path(app.outdir) / "llms.txt").write_text("\n".join(lines))


def setup(app) -> None:  # noqa: ANN001
    app.add_directive("options", Options)
    app.add_html_math_renderer("mathml", (_math("inline"), None), (_math("block"), None))
    app.connect("autodoc-process-docstring", _escape)
    app.connect("build-finished", _write_index)
