"""HTML pages that need no other file."""

import base64
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cluster.environment import cpus
from pipelines.tracking.provenance import code

if TYPE_CHECKING:
    from pipelines.reporting.result import Result

CPU = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)
FOLDER = Path(__file__).parent


def page(result: "Result", images: Mapping[str, Path], *, command: str, config: str) -> str:
    """Returns the page of a result.

    Arguments:
        result: The result.
        images: PNG files by the names of the plots.
        command: The command that reproduces it.
        config: The configuration as YAML.
    """
    values = {"result": result, "command": command, "created": _created(), "config": config}
    return render(FOLDER / "page.html.j2", images, **values)


def _created() -> str:
    """Returns the time, the code and the machine."""
    versions = code()
    commit = versions["commit"] or ""
    text = f", commit {commit[:12]}{'+' if commit.endswith('+') else ''}" if commit else ""
    time = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return f"{time} by ebflow {versions['ebflow']}{text}, torch {versions['torch']}, {machine()}"


def render(template: Path, images: Mapping[str, Path], **values: Any) -> str:  # noqa: ANN401
    """Returns a page.

    Arguments:
        template: The template; ``images`` are in base64, by name.
        images: PNG files by name of the figure.
        values: Further values for the template.
    """
    import jinja2

    loader = jinja2.FileSystemLoader([template.parent, FOLDER])
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    encoded = {name: base64.b64encode(path.read_bytes()).decode() for name, path in images.items()}
    return environment.get_template(template.name).render(
        images=encoded, machine=machine(), **values
    )


@cache
def machine() -> str:
    """Returns the cores of this machine and their model."""
    info = Path("/proc/cpuinfo")
    model = CPU.search(info.read_text()) if info.exists() else None
    return f"{cpus()} × {model[1] if model else platform.machine()}"
