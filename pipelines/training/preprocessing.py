"""What stands in front of a flow, fitted to the training split: the preprocessing's chain.

Fitting costs O(N D²) for the moments and O(D³) for the whitening: seconds at D = 3072, so it is
done once for all trainings that share it. So is a mixture of Gaussians behind it.
"""

__all__ = [
    "CHAIN",
    "GAUSSIAN",
    "MIXTURE",
    "NUMBERS",
    "baseline",
    "fitted",
    "mixture",
    "names",
]

import dataclasses
from collections.abc import Sequence

import torch

from ebflow import mixtures, preprocessing
from ebflow.data.loader import Dataset
from ebflow.preprocessing import Preprocessing, SingularCovariance
from pipelines.config import FrontConfig, PreprocessConfig
from pipelines.config.bounds import bounds

CHAIN, GAUSSIAN, NUMBERS = "chain.safetensors", "gaussian.safetensors", "preprocess.json"
"""Files of the chain in front of the flow, of the one that makes the data's Gaussian, and of
what the baselines needed."""

MIXTURE = "mixture.safetensors"
"""File of the mixture of Gaussians behind the chain of the data's Gaussian."""


def fitted(config: FrontConfig, dataset: Dataset) -> Preprocessing:
    """Returns the chain in front of a flow."""
    front = config.chain
    chain = preprocessing.fit(
        dataset.split("train"),
        normalise=front.normalise,
        margin=front.logit,
        scale=front.scale,
        extended=front.extended,
        shrinkage=front.shrinkage,
        grids=front.grids,
        tails=front.tails,
        bounds=bounds(front.bounds or (), names(dataset)),
        seed=config.seed,
        dtype=getattr(torch, config.dtype),
    )
    if not config.mixture:
        return chain
    base = mixture(dataset, chain, config.seed).mixture.trained()
    return dataclasses.replace(chain, base=base)


def names(dataset: Dataset) -> Sequence[str]:
    """Returns the names of the features; x1 … xD where the data have none."""
    columns = dataset.manifest.columns
    if columns is not None:
        return columns.names
    return [f"x{k + 1}" for k in range(dataset.split("train").width)]


def baseline(dataset: Dataset, front: PreprocessConfig) -> Preprocessing:
    """Returns the chain of the Gaussian of greatest likelihood.

    Where the covariance is singular there is none; it is then shrunk as rows left out choose.
    """
    train = dataset.split("train")
    chain = {"margin": front.logit, "scale": front.scale, "grids": front.grids}
    try:
        return preprocessing.fit(train, **chain)
    except SingularCovariance:
        return preprocessing.fit(train, shrinkage=None, **chain)


def mixture(dataset: Dataset, chain: Preprocessing, seed: int) -> mixtures.Search:
    """Returns the mixture of Gaussians behind a chain, chosen by the validation split."""
    train, held = (
        mixtures.behind(chain, dataset.split(name), seed=seed) for name in ("train", "validation")
    )
    return mixtures.search(train, held, seed=seed)
