"""How figures look: lines are told apart by their styles, so in greys too."""

__all__ = ["BASELINE", "DATA", "FLOW", "LIGHT", "STYLE", "wrapped"]

import re

import matplotlib

matplotlib.use("Agg")

FLOW, DATA, BASELINE, LIGHT = "#1f5fa8", "#6b6b6b", "#c2491d", "#c8c8c8"
STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 130,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


def wrapped(name: str, width: int, lines: int = 2) -> str:
    """Returns a name on lines of at most ``width`` characters, broken at words; the end may go."""
    found = [""]
    for word in re.findall(r"[^\s_]+[\s_]*|[\s_]+", name):
        if found[-1] and len((found[-1] + word).rstrip()) > width:
            found.append("")
        found[-1] += word
    told = [line.rstrip() for line in found]
    short = [line if len(line) <= width else f"{line[: width - 1]}…" for line in told[:lines]]
    if len(told) > lines:
        short[-1] = f"{short[-1].rstrip('…')[: width - 1]}…"
    return "\n".join(short)
