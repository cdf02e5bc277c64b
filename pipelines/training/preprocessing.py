"""The preprocessing in front of a flow, fitted to the training split.

Fitting costs O(N D²) for the moments and O(D³) for the whitening: seconds at D = 3072, so it is
done once for all trainings that share it. So is a mixture of Gaussians behind it.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ebflow import mixtures, preprocessing
from ebflow.errors import BadInput
from ebflow.fit_settings import bounds_by_index
from ebflow.preprocessing import Preprocessing, SingularCovariance
from pipelines.config import ChainConfig, PreprocessConfig
from pipelines.data.dataset import Dataset

CHAIN, GAUSSIAN, NUMBERS = "chain.safetensors", "gaussian.safetensors", "preprocess.json"
"""Files of the chain in front of the flow, of the data's Gaussian (of a regression, if there are
contexts), and of what the baselines needed."""

COLUMNS = "columns.json"
"""File of what is done to columns of a table."""

MIXTURE = "mixture.safetensors"
"""File of the mixture of Gaussians behind the chain of the data's Gaussian, chain included."""


def fitted(config: ChainConfig, dataset: Dataset) -> Preprocessing:
    """Returns the chain in front of a flow, and its base if that is a mixture."""
    options = config.chain
    columns = names(dataset)
    with _named_options():
        chain = preprocessing.fit(
            dataset.split("train"),
            **options.model_dump(exclude={"logit", "bounds", "match_after"}),
            margin=options.logit,
            bounds=bounds_by_index(options.bounds or {}, columns, len(columns), None),
            seed=config.seed,
            names=columns,
            dtype=getattr(torch, config.dtype),
        )
    if not config.mixture:
        return chain
    given = dataset.split("train").context_width
    rows, held = (y[:, given:] for y in behind(dataset, chain, config.seed))
    base = mixtures.search(rows, held, seed=config.seed).mixture.trainable()
    return dataclasses.replace(chain, base=base)


def names(dataset: Dataset) -> Sequence[str]:
    """Returns the names of the features; x1 … xD where the data have none."""
    columns = dataset.manifest.columns
    if columns is not None:
        return [column.name for column in columns.modelled]
    return [f"x{k + 1}" for k in range(dataset.split("train").width)]


def baseline(dataset: Dataset, options: PreprocessConfig) -> Preprocessing:
    """Returns the chain of the Gaussian of greatest likelihood.

    Where the covariance is singular there is none; it is then shrunk as rows left out choose.
    """
    train = dataset.split("train")
    chain = {"margin": options.logit, "scale": options.scale, "grids": options.grids}
    chain["names"] = names(dataset)
    with _named_options():
        try:
            return preprocessing.fit(train, **chain)
        except SingularCovariance:
            return preprocessing.fit(train, shrinkage=None, **chain)


@contextmanager
def _named_options() -> Iterator[None]:
    """Names the option of the command line in errors about an argument of the library."""
    try:
        yield
    except BadInput as error:
        section = "train" if error.option == "dtype" else "preprocess"
        raise dataclasses.replace(error, option=f"--{section}.{error.option}") from None


def behind(dataset: Dataset, chain: Preprocessing, seed: int) -> list[Tensor]:
    """Returns training and validation rows behind a chain, their contexts in front of them."""
    splits = map(dataset.split, ("train", "validation"))
    return [mixtures.preprocessed_rows(chain, split, seed=seed) for split in splits]
