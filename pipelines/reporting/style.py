"""How figures look: lines are told apart by their styles, so in greys too."""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

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
matplotlib.use("Agg")
matplotlib.rcParams.update(STYLE)


def draw(figures: Mapping[str, Figure], output: Path) -> dict[str, Path]:
    """Saves figures in a stage's output; returns their files by name."""
    folder = output / "figures"
    folder.mkdir()
    files = {name: folder / f"{name}.png" for name in figures}
    for name, figure in figures.items():
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


class _AtWords(textwrap.TextWrapper):
    wordsep_re = re.compile(r"(\s+|[^\s_]*_+)")


def wrapped(name: str, width: int) -> str:
    """Returns a name on two lines at most, broken at spaces and underscores; the end may go."""
    return _AtWords(width, max_lines=2, placeholder="…").fill(name)
