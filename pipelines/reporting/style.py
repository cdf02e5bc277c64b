"""How figures look: lines are told apart by their styles, so in greys too."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

matplotlib.use("Agg")

Captioned = tuple[Figure, str]
"""A figure, and what it shows in one or two sentences."""

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


def draw(made: Callable[[], Mapping[str, Figure]], output: Path) -> dict[str, Path]:
    """Saves figures, which are made in this style, in a stage's output; returns files by name."""
    folder = output / "figures"
    folder.mkdir()
    files = {}
    with matplotlib.rc_context(STYLE):
        for name, figure in made().items():
            files[name] = folder / f"{name}.png"
            save(figure, files[name])
    return files


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as ``savefig`` does, which draws all of it twice where it is laid out."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    imsave(path, np.asarray(canvas.buffer_rgba()), dpi=figure.dpi)


def panels(
    across: int = 1, width: float = 8, height: float = 3.2, *, down: int = 1, **shared: bool
) -> tuple[Figure, Any]:
    """Returns a figure of a size in inches and its axes, as ``Figure.subplots`` gives them."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(down, across, **shared)


def legend(figure: Figure, axis: Axes, size: int = 9) -> None:
    """Names the lines of an axis, beside all axes."""
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", fontsize=size)


def wrapped(name: str, width: int, lines: int = 2) -> str:
    """Returns a name on lines of at most ``width`` characters, broken at words; the end may go."""
    found = [""]
    for word in re.findall(r"[^\s_]+[\s_]*|[\s_]+", name):
        if found[-1] and len((found[-1] + word).rstrip()) > width:
            found.append("")
        found[-1] += word
    stripped = [line.rstrip() for line in found]
    short = [line if len(line) <= width else f"{line[: width - 1]}…" for line in stripped[:lines]]
    if len(stripped) > lines:
        short[-1] = f"{short[-1].rstrip('…')[: width - 1]}…"
    return "\n".join(short)
