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
project_copyright = author
release = ebflow.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"ebflow {release}"
html_math_renderer = "mathml"
html_static_path, html_css_files = ["_static"], ["site.css"]
highlight_language = "text"

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88  # longer ones have a line for each parameter
napoleon_google_docstring = True
napoleon_use_ivar = True
exclude_patterns = ["_build"]


COLON = "\N{MODIFIER LETTER COLON}"


def _hide_colons(app, what, name, obj, options, lines):  # noqa: ANN001, ANN202
    """Napoleon takes what stands before a colon for the type of an attribute."""
    if what in ("attribute", "data", "property"):
        lines[:] = [re.sub(r":(?= )|(?<=[\W\d]):$", COLON, line) for line in lines]


def _escape(app, what, name, obj, options, lines):  # noqa: ANN001, ANN202
    """Shapes such as (*batch, D) are no emphasis, and |det W| is no substitution."""
    text = "\n".join(lines).replace(COLON, ":")
    parts = re.split("(``.+?``|`[^`]+`)", text, flags=re.DOTALL)
    parts[::2] = map(_plain, parts[::2])
    lines[:] = "".join(parts).split("\n")


def _plain(text):  # noqa: ANN001, ANN202
    return re.sub(r"(?<![*\\\w])\*(?=[\w),])|(?<!\\)\|", lambda found: "\\" + found[0], text)


def _math(display):  # noqa: ANN001, ANN202
    """Returns the visitor of a formula, which writes MathML: browsers show it without a script."""

    def visit(writer, node) -> None:  # noqa: ANN001
        formula = convert(node.astext(), display=display)
        # A function's name and its argument would touch, as in "logp".
        writer.body.append(re.sub("(<mi>[a-z]{2,}</mi>)", r'\1<mspace width="0.17em" />', formula))
        raise nodes.SkipNode

    return visit


def _prepare(app, tree, name) -> None:  # noqa: ANN001
    """Puts no line break into 0.3 ± 0.1, [0.2, 0.4] and 95 %; links images to their files."""
    for image in tree.findall(nodes.image):
        image.setdefault("width", "100%")  # Sphinx links images that have a width
    for text in list(tree.findall(nodes.Text)):
        if not isinstance(text.parent, nodes.FixedTextElement | nodes.literal):
            joined = re.sub(r" ± | %|\[[−\d.]+, [−\d.]+\]", _unbroken, text)
            text.parent.replace(text, nodes.Text(joined))


def _unbroken(found):  # noqa: ANN001, ANN202
    return found[0].replace(" ", "\N{NO-BREAK SPACE}")


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
    app.connect("autodoc-process-docstring", _hide_colons, priority=400)
    app.connect("autodoc-process-docstring", _escape)
    app.connect("doctree-resolved", _prepare)
    app.connect("build-finished", _write_index)
