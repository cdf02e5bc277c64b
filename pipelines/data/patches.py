"""Patches of the two photographs that scikit-learn bundles.

The splits share no pixel. The training patches lie on the left of a vertical line at 80 % of the
width, the validation patches in the strip from there to 90 %, the test patches on the right. The
places within each strip are distinct and random, always the same; patches of a split overlap.
"""

__all__ = ["PATCHES", "natural_patches", "places"]

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from pipelines.data.splits import Counts

PATCHES = Counts(20_000, 2_000, 2_000)


def natural_patches(size: int) -> np.ndarray:
    """Returns square patches with shape (N, C, size, size), in the order of the splits."""
    from sklearn.datasets import load_sample_images

    pictures = np.stack(load_sample_images().images)
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (size, size), axis=(1, 2))
    return np.concatenate([windows[place] for place in places(pictures.shape[:3], size)])


def places(shape: tuple[int, int, int], size: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields the picture, the top and the left of the patches of each split.

    Arguments:
        shape: The number of pictures, their height and their width.
        size: The side of a patch.
    """
    count, height, width = shape
    lines = [0, width * 8 // 10, width * 9 // 10, width]
    rng = np.random.Generator(np.random.PCG64(0))
    for (left, right), rows in zip(pairwise(lines), PATCHES[:3], strict=True):
        room = (count, height - size + 1, right - left - size + 1)
        picture, y, x = np.unravel_index(rng.permutation(np.prod(room))[:rows], room)
        yield picture, y, left + x
