"""Images as tiles of one picture."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

MOST = 64


def is_picture(shape: Sequence[int]) -> bool:
    """Returns whether a shape is (H, W), (1, H, W) or (3, H, W)."""
    found = _picture(shape)
    return len(found) == 2 or found[:-2] == (3,)


def show_tiles(axis: Axes, images: np.ndarray, shape: Sequence[int], across: int = 0) -> None:
    """Draws images as tiles.

    Arguments:
        axis: Where.
        images: Values in [0, 1], with shape (N, D).
        shape: The shape of one, (H, W) or (C, H, W).
        across: Tiles in a row; 0: as many as fill a square, of 64 at most.
    """
    across = across or min(math.isqrt(MOST), math.isqrt(len(images)))
    axis.imshow(tiles(images, shape, across), cmap="gray", vmin=0, vmax=1)
    axis.axis("off")


def tiles(images: np.ndarray, shape: Sequence[int], across: int) -> np.ndarray:
    """Returns the first images in rows of ``across``, NaN between them and where there is none.

    There are as many rows as fit; at most ``across``.
    """
    *colours, height, width = _picture(shape)
    down = min(across, math.ceil(len(images) / across))
    images = images[: across * down].reshape(-1, *_picture(shape)).clip(0, 1)
    made = np.full((down * across, height + 1, width + 1, *colours), np.nan)
    made[: len(images), :height, :width] = np.moveaxis(images, 1, -1) if colours else images
    grid = made.reshape(down, across, *made.shape[1:]).swapaxes(1, 2)
    return grid.reshape(down * (height + 1), across * (width + 1), *colours)[:-1, :-1]


def _picture(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns (height, width), or (3, height, width) of colours."""
    return tuple(size for size in shape if size > 1)
