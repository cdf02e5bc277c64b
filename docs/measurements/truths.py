"""Fits the distributions in ``ebflow/complexity/fitted``, and writes their files.

    python docs/measurements/truths.py digits patches
    python docs/measurements/truths.py mnist --images mnist.npy

Grey levels get uniform noise of one level. A random sixth of the rows is held out and selects the
number of components.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import ebflow
from ebflow.complexity.truths import NAMES, fit_truth, save
from ebflow.randomness import generator, uniform

FITTED = Path(ebflow.__file__).parent / "complexity" / "fitted"

MOST = 10_000
"""The number of rows of MNIST that are used."""

COMPONENTS = {"digits": (5, 10, 20, 40), "mnist": (20,), "patches": (20,)}
"""Numbers of components to try."""

SIDE, PATCHES = 16, 4000
"""The side of patches in pixels, and the number of patches per photograph."""


def main() -> None:
    """Fits the named distributions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=NAMES)
    parser.add_argument("--images", help="images of MNIST, shape (N, 784): an .npy file")
    parser.add_argument("--folder", type=Path, default=FITTED)
    options = parser.parse_args()
    for name in options.names:
        rows, factors = ROWS[name](options.images)
        order = torch.randperm(len(rows), generator=generator(0, "truths", name))
        held, train = rows[order].tensor_split([len(rows) // 6])
        truth = fit_truth(train, held, components=COMPONENTS[name], factors=factors)
        save(truth, options.folder / f"{name}.safetensors")
        print(f"{name}: {len(truth.clean.weights)} components")


def _digits(images: str | None) -> tuple[Tensor, int | None]:
    from sklearn.datasets import load_digits

    return _noised(load_digits().data, "digits"), None


def _mnist(images: str | None) -> tuple[Tensor, int | None]:
    return _noised(np.load(images)[:MOST], "mnist"), 10


def _patches(images: str | None) -> tuple[Tensor, int | None]:
    from sklearn.datasets import load_sample_images
    from sklearn.feature_extraction.image import extract_patches_2d

    grey = [photograph.mean(2) for photograph in load_sample_images().images]
    cut = [extract_patches_2d(one, (SIDE, SIDE), max_patches=PATCHES, random_state=0)
           for one in grey]  # fmt: skip
    return _noised(np.concatenate(cut).reshape(-1, SIDE**2), "patches"), 10


def _noised(levels: np.ndarray, name: str) -> Tensor:
    x = torch.from_numpy(levels).double()
    return x + uniform(x.shape, x, generator(0, "truths", "noise", name))


ROWS: dict[str, Callable[[str | None], tuple[Tensor, int | None]]] = {
    "digits": _digits,
    "mnist": _mnist,
    "patches": _patches,
}
"""From the file of MNIST to rows, and the number of factors."""

if __name__ == "__main__":
    main()
