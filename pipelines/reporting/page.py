"""The page of a result, in HTML."""

import base64
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from pipelines.cluster.environment import cpus
from pipelines.tracking.provenance import code

if TYPE_CHECKING:
    from pipelines.reporting.result import Result

CPU = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)


def page(result: "Result", images: Mapping[str, Path], *, command: str, config: str) -> str:
    """Returns the page of a result, in HTML that needs no other file.

    Arguments:
        result: The result.
        images: PNG files by the names of the plots.
        command: The command that reproduces it.
        config: The configuration as YAML.
    """
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    encoded = {name: base64.b64encode(path.read_bytes()).decode() for name, path in images.items()}
    values = {"result": result, "command": command, "created": _created(), "config": config}
    return environment.get_template("page.html.j2").render(images=encoded, **values)


def _created() -> str:
    """Returns the time, the code and the machine."""
    versions = code()
    commit = versions["commit"] or ""
    text = f", commit {commit[:12]}{'+' if commit.endswith('+') else ''}" if commit else ""
    time = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return f"{time} by ebflow {versions['ebflow']}{text}, torch {versions['torch']}, {machine()}"


@cache
def machine() -> str:
    """Returns the cores of this machine and their model."""
    info = Path("/proc/cpuinfo")
    model = CPU.search(info.read_text()) if info.exists() else None
    return f"{cpus()} × {model[1] if model else platform.machine()}"
