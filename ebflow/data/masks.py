r"""Which pixels of images are missing, for imputation.

A mask has the shape of an image, (C, H, W) or (H, W), and is true where a pixel is missing, in all
colours alike. *Strokes* are the pixels that handwriting covers: digits bundled with scikit-learn,
scaled to H × W by bilinear interpolation, where the ink is at least half of the strongest.
"""

__all__ = ["MASKS", "masks"]

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import BadInput
from ..randomness import generator

INK = 8.0
"""Half of the strongest ink of scikit-learn's digits."""

Size = tuple[int, int]


def strokes(size: Size, count: int, seed: int) -> Tensor:
    """Returns the strokes of ``count`` digits in random order, with shape (count, H, W)."""
    from sklearn.datasets import load_digits

    digits = torch.from_numpy(load_digits().images.astype(np.float32))
    order = torch.randperm(len(digits), generator=generator(seed, "masks"))
    chosen = digits[order[torch.arange(count) % len(order)]].unsqueeze(1)
    return interpolate(chosen, size, mode="bilinear", antialias=True)[:, 0] >= INK


def half(size: Size, count: int, seed: int) -> Tensor:
    """Returns lower halves, with shape (count, H, W)."""
    found = torch.zeros(count, *size, dtype=torch.bool)
    found[:, size[0] // 2 :] = True
    return found


def square(size: Size, count: int, seed: int) -> Tensor:
    """Returns the middle quarter of the area, with shape (count, H, W)."""
    found = torch.zeros(count, *size, dtype=torch.bool)
    top, left = size[0] // 4, size[1] // 4
    found[:, top : size[0] - top, left : size[1] - left] = True
    return found


MASKS: dict[str, Callable[[Size, int, int], Tensor]] = {
    function.__name__: function for function in (strokes, half, square)
}


def masks(kind: str, shape: Sequence[int], count: int, *, seed: int) -> Tensor:
    """Returns boolean masks with shape (count, *shape), true where a pixel is missing.

    Arguments:
        kind: A name in ``MASKS``.
        shape: The shape of an image, (C, H, W) or (H, W).
        count: The number of masks; mask i is the same for any number of them.
        seed: Which digits, and in which order.

    Raises:
        BadInput: if ``shape`` is not that of an image.
    """
    if len(shape) not in (2, 3):
        raise BadInput(f"data.source: found rows of shape {tuple(shape)}, expected images")
    found = MASKS[kind](tuple(shape[-2:]), count, seed)
    return found.view(count, *(1,) * (len(shape) - 2), *shape[-2:]).expand(count, *shape)
