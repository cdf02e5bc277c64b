"""Patches of the two photographs that scikit-learn bundles, split by place.

A vertical line at 80 % of the width has the training patches on its left, the strip from there
to 90 % those for validation, the rest those for testing; no patch crosses a line, so that no two
splits share a pixel. Within its strips each split takes distinct places at random, always the
same; patches of one split overlap. Photographs from elsewhere go in as a folder of images.
"""

__all__ = ["COUNTS", "natural_patches", "places", "strips"]

from collections.abc import Iterator

import numpy as np

from ebflow.data.splits import Counts

COUNTS = Counts(20_000, 2_000, 2_000)
CHUNK = 1000


def natural_patches(size: int, *, grey: bool = False) -> Iterator[np.ndarray]:
    """Yields square patches with shape (n, C, size, size), first train, then validation, test."""
    from sklearn.datasets import load_sample_images

    pictures = np.stack(load_sample_images().images)
    pictures = _luma(pictures) if grey else pictures
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (size, size), axis=(1, 2))
    for picture, y, x in places(pictures.shape[:3], size):
        for k in range(0, len(x), CHUNK):
            part = slice(k, k + CHUNK)
            yield windows[picture[part], y[part], x[part]]


def places(shape: tuple[int, int, int], size: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields picture, top and left of the patches of each split.

    Arguments:
        shape: Number of pictures, their height and width.
        size: Side of a patch.
    """
    count, height, width = shape
    rng = np.random.Generator(np.random.PCG64(0))
    for (left, right), rows in zip(strips(width), _sizes(), strict=True):
        room = (count, height - size + 1, right - left - size + 1)
        picture, y, x = np.unravel_index(rng.permutation(np.prod(room))[:rows], room)
        yield picture, y, left + x


def strips(width: int) -> list[tuple[int, int]]:
    """Returns where the strips of train, validation and test begin and end, in pixels."""
    lines = [0, width * 8 // 10, width * 9 // 10, width]
    return list(zip(lines[:-1], lines[1:], strict=True))


def _sizes() -> tuple[int, ...]:
    return COUNTS.train, COUNTS.validation, COUNTS.test


def _luma(pictures: np.ndarray) -> np.ndarray:
    """Returns grey levels by ITU-R BT.601 in whole thousandths, rounded, with C = 1."""
    weights = np.array([299, 587, 114])
    return ((pictures @ weights + 500) // 1000).astype(np.uint8)[..., None]
