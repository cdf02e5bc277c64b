"""The machine on which something was measured."""

import platform
import re
from functools import cache
from pathlib import Path

from pipelines.cluster.environment import cpus

CPU = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)


@cache
def machine() -> str:
    """Returns the cores of this machine and their model."""
    info = Path("/proc/cpuinfo")
    model = CPU.search(info.read_text()) if info.exists() else None
    return f"{cpus()} × {model[1] if model else platform.machine()}"
