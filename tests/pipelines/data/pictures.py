"""Small image files."""

import numpy as np
from PIL import Image


def pixels(seed=0, height=6, width=4, channels=3):
    """Returns random levels with shape (H, W, 3), or (H, W) of one channel."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, array, mode=None, **options):
    """Writes an image and returns its path; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def folder(path, count=8, suffix="png", **options):
    """Writes images 00 … and returns the folder."""
    for k in range(count):
        save(path / f"{k:02d}.{suffix}", pixels(k, **options))
    return path
