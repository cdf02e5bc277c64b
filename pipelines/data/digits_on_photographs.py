"""Digits on patches of photographs: labelled images of 32 × 32 pixels in colour, offline.

A handwritten digit of 8 × 8 pixels is enlarged to 24 × 24 by linear interpolation and painted at
a random place on a patch of 32 × 32 pixels, in a random light colour. Its grey level is the share
of the paint. The patch is darkened before, so that a small network can learn to read. The class is
the digit. The splits share neither digits nor pixels of photographs. All of it is random, and
always the same.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipelines.data.arrays import array_table
from pipelines.data.named import places

SIDE = 32  # Pixels of a side
ENLARGED = 24  # Pixels of a digit's side

# Images of each split, and the digits of which they are made: each on several patches.
IMAGES = {"train": 10_000, "validation": 1_000, "test": 1_000}
DIGITS = {"train": 1_297, "validation": 250, "test": 250}

PAINT, DARK = 160, 128  # The least level of a light colour, and the largest of a darkened patch


def table() -> pa.Table:
    """Returns the images with their classes and the names of their splits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    shares = enlarged(digits.images / 16)
    rng = np.random.Generator(np.random.PCG64(0))
    order = rng.permutation(len(shares))
    images, labels, start = [], [], 0
    for (split, count), background in zip(IMAGES.items(), backgrounds(), strict=True):
        own = order[start : start + DIGITS[split]]
        start += DIGITS[split]
        chosen = own[np.arange(count) % len(own)]
        images.append(painted(background, shares[chosen], rng))
        labels.append(digits.target[chosen])
    splits = np.repeat([*IMAGES], [*IMAGES.values()])
    return array_table(np.concatenate(images), 256, label=np.concatenate(labels), split=splits)


def backgrounds() -> Iterator[np.ndarray]:
    """Yields the patches of each split, which lie in separate strips of the photographs."""
    from sklearn.datasets import load_sample_images

    pictures = np.stack(load_sample_images().images)
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (SIDE, SIDE), axis=(1, 2))
    for count, place in zip(IMAGES.values(), places(pictures.shape[:3], SIDE), strict=True):
        yield windows[tuple(part[:count] for part in place)]


def enlarged(digits: np.ndarray) -> np.ndarray:
    """Returns squares of ``ENLARGED`` pixels by linear interpolation, of squares (N, n, n)."""
    side = digits.shape[1]
    at = (np.arange(ENLARGED) + 0.5) * side / ENLARGED - 0.5  # centres, in pixels of the digit
    weights = np.maximum(0, 1 - np.abs(at[:, None].clip(0, side - 1) - np.arange(side)))
    return np.einsum("ai,nij,bj->nab", weights, digits, weights)


def darkened(patches: np.ndarray) -> np.ndarray:
    """Returns patches whose levels are 0 … ``DARK`` instead of 0 … 255."""
    return patches * np.float32(DARK / 255)


def painted(patches: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns patches (N, 3, 32, 32) with digits painted on, as uint8.

    ``shares`` are those of the paint in each pixel, with shape (N, 24, 24).
    """
    count = len(patches)
    corners = rng.integers(0, SIDE - ENLARGED + 1, size=(count, 2))
    colours = rng.uniform(PAINT, 255, size=(count, 3)).astype(np.float32)
    mask = np.zeros((count, 1, SIDE, SIDE), np.float32)
    for one, share, (top, left) in zip(mask, shares, corners, strict=True):
        one[0, top : top + ENLARGED, left : left + ENLARGED] = share
    mixed = (1 - mask) * darkened(patches) + mask * colours[:, :, None, None]
    return np.rint(mixed).astype(np.uint8)
