"""Fits the distributions in ``ebflow/complexity/fitted``, and writes their files.

    python docs/measurements/truths.py digits patches
    python docs/measurements/truths.py mnist --images mnist.npy

Grey levels get uniform noise of one level. A random sixth of the rows is held out and selects the
number of components.

Source: A Classification EM Algorithm for Clustering (Celeux, Govaert, 1992): each row is assigned
to its most likely factor analyser, and each analyser is fitted to its rows.
"""

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import ebflow
from ebflow.bases import GaussianMixture
from ebflow.complexity.factors import FactorMixture
from ebflow.complexity.truths import NAMES, parts
from ebflow.files import save_tensors
from ebflow.randomness import generator, uniform

FITTED = Path(ebflow.__file__).parent / "complexity" / "fitted"

MOST = 10_000
"""The number of rows of MNIST that are used."""

COMPONENTS = {"digits": (5, 10, 20, 40), "mnist": (20,), "patches": (20,)}
"""Numbers of components to try."""

FLOOR = 0.015
"""The least variance of a component in any direction; the mean variance is 1."""

ROUNDS, ITERATIONS = 3, 20
"""Times that rows are assigned to analysers, and most iterations of the fit of one analyser."""

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
        mixture = best(train, held, components=COMPONENTS[name], factors=factors)
        tensors = {part: tensor.float() for part, tensor in parts(mixture).items()}
        save_tensors(tensors, options.folder / f"{name}.safetensors", rare="0.0")
        print(f"{name}: {len(mixture.weights)} components")


def best(
    x: Tensor, held_out: Tensor, *, components: Sequence[int], factors: int | None
) -> GaussianMixture:
    """Returns the mixture whose number of components is best on held-out rows.

    Arguments:
        x: Training rows with shape (N, D).
        held_out: Held-out rows.
        components: Numbers of components to try.
        factors: The number of factors of each component; None: full covariances.
    """
    centre = x.mean(0)
    scale = float((x - centre).square().mean().sqrt())
    rows, others = (x - centre) / scale, (held_out - centre) / scale
    mixtures = [_fitted(rows, count, factors) for count in components]
    return max(mixtures, key=lambda mixture: float(mixture.log_prob(others).mean()))


def _fitted(x: Tensor, count: int, factors: int | None) -> GaussianMixture:
    if factors is not None:
        return _analysers(x, count, factors)
    from sklearn.mixture import GaussianMixture as Mixture

    model = Mixture(count, reg_covar=FLOOR, random_state=0).fit(x.numpy())
    return GaussianMixture(
        *map(torch.from_numpy, (model.weights_, model.means_, model.covariances_))
    )


def _analysers(x: Tensor, components: int, factors: int) -> FactorMixture:
    """Returns factor analysers fitted to rows; those with too few rows are dropped."""
    from sklearn.cluster import KMeans

    labels = torch.from_numpy(KMeans(components, random_state=0).fit_predict(x.numpy()))
    for _ in range(ROUNDS):
        groups = [x[labels == k] for k in labels.unique()]
        mixture = _of_groups([rows for rows in groups if len(rows) >= 2 * factors], factors)
        labels = mixture.responsibilities(x).argmax(0)
    return mixture


def _of_groups(groups: list[Tensor], factors: int) -> FactorMixture:
    """Returns a mixture with an analyser of each group of rows, weighted by their numbers."""
    from sklearn.decomposition import FactorAnalysis
    from sklearn.exceptions import ConvergenceWarning

    models = [FactorAnalysis(factors, random_state=0, max_iter=ITERATIONS) for _ in groups]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for model, rows in zip(models, groups, strict=True):
            model.fit(rows.numpy())

    def stacked(name: str) -> Tensor:
        return torch.stack([torch.from_numpy(getattr(model, name)) for model in models])

    weights = torch.tensor([len(rows) for rows in groups]).double()
    noise = stacked("noise_variance_").clamp(min=FLOOR)
    return FactorMixture(weights, stacked("mean_"), stacked("components_").mT, noise)


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
