"""The style of figures: lines differ by their styles, so that greys suffice."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Captioned = tuple[Figure, str]  # A figure and its caption of one or two sentences

MOST_TILES = 64

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


def panels(
    across: int = 1,
    width: float = 8,
    height: float = 3.2,
    *,
    down: int = 1,
    **options: bool | Sequence[float],
) -> tuple[Figure, Any]:
    """Returns a figure of a size in inches and its axes, as ``Figure.subplots`` gives them."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(down, across, **options)


def is_picture(shape: Sequence[int]) -> bool:
    """Returns True if a shape is (H, W), (1, H, W) or (3, H, W)."""
    sizes = _picture(shape)
    return len(sizes) == 2 or sizes[:-2] == (3,)


def show_tiles(axis: Axes, images: np.ndarray, shape: Sequence[int], across: int = 0) -> None:
    """Draws images as tiles.

    Arguments:
        axis: Where.
        images: Values in [0, 1], with shape (N, D).
        shape: The shape of one, (H, W) or (C, H, W).
        across: Tiles in a row; 0: as many as fill a square, of 64 at most.
    """
    across = across or min(math.isqrt(MOST_TILES), math.isqrt(len(images)))
    axis.imshow(tiles(images, shape, across), cmap="gray", vmin=0, vmax=1)
    axis.axis("off")


def tiles(images: np.ndarray, shape: Sequence[int], across: int) -> np.ndarray:
    """Returns the first images in at most ``across`` rows of ``across``, with NaN between them."""
    *colours, height, width = _picture(shape)
    down = min(across, math.ceil(len(images) / across))
    images = images[: across * down].reshape(-1, *_picture(shape)).clip(0, 1)
    padded = np.full((down * across, height + 1, width + 1, *colours), np.nan)
    padded[: len(images), :height, :width] = np.moveaxis(images, 1, -1) if colours else images
    grid = padded.reshape(down, across, *padded.shape[1:]).swapaxes(1, 2)
    return grid.reshape(down * (height + 1), across * (width + 1), *colours)[:-1, :-1]


def signed(rows: np.ndarray, shape: Sequence[int], across: int) -> np.ndarray:
    """Returns signed images as ``tiles``, summed over colours: each on its own scale about 1/2."""
    grey = rows.reshape(len(rows), -1, *shape[-2:]).sum(1).reshape(len(rows), -1)
    most = np.abs(grey).max(1, keepdims=True)
    return tiles(0.5 + 0.5 * grey / np.where(most > 0, most, 1), shape[-2:], across)


def _picture(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns (height, width), or (3, height, width) of colours."""
    return tuple(size for size in shape if size > 1)
