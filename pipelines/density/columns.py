"""What is done to which column of a table, as lines on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

FILE = "columns.json"
"""Below the preprocessing's folder."""

NAMED = 8
"""Most columns that a line names; ``summary.json`` has all."""


def lines(summary: Mapping[str, Any]) -> dict[str, str]:
    """Returns what is done to columns of a table, a line for each step."""
    steps = {f"{name} ({step:g})": "" for name, step in summary.get("grids", {}).items()}
    what = {
        "on grids": (steps, "dequantised by noise of their step"),
        "bounded": (summary.get("bounds", {}), "carried to the line by a logit or a logarithm"),
        "tails": (summary.get("tails", []), "bent by Johnson's S_U"),
    }
    return {name: f"{_few(list(found))}: {done}" for name, (found, done) in what.items() if found}


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"
