"""Pages: templates of Jinja on one base, filled into HTML that needs no other file."""

import base64
import platform
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.cluster.environment import cpus

CPU = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)
FOLDER = Path(__file__).parent


def render(template: Path, images: Mapping[str, Path], **values: Any) -> str:  # noqa: ANN401
    """Returns a self-contained page.

    Arguments:
        template: The template; it finds ``images`` in base64 by name, and the ``machine``.
        images: PNG files by name of the figure.
        values: What else the template is filled with.
    """
    import jinja2

    loader = jinja2.FileSystemLoader([template.parent, FOLDER])
    environment = jinja2.Environment(loader=loader, autoescape=True)
    encoded = {name: base64.b64encode(path.read_bytes()).decode() for name, path in images.items()}
    page = environment.get_template(template.name)
    return page.render(images=encoded, machine=machine(), **values)


@cache
def machine() -> str:
    """Returns the cores of this machine and their model."""
    info = Path("/proc/cpuinfo")
    model = CPU.search(info.read_text()) if info.exists() else None
    return f"{cpus()} × {model[1] if model else platform.machine()}"
