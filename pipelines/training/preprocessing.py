"""The preprocessing in front of a flow, fitted to the training split.

Fitting costs O(N D²) for the moments and O(D³) for the whitening: seconds at D = 3072, so it is
done once for all trainings that share it. So is a mixture of Gaussians behind it.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ebflow import mixtures
from ebflow.errors import BadInput
from ebflow.fit_settings import bounds_by_index
from ebflow.preprocessing import Preprocessing, SingularCovariance, fit
from ebflow.tables import Columns
from pipelines.config import PreprocessConfig, PreprocessFit
from pipelines.data.dataset import Dataset

# Files of the preprocessing in front of the flow, and of the data's Gaussian (of a regression, if
# there are contexts).
PREPROCESSING, GAUSSIAN = "preprocessing.safetensors", "gaussian.safetensors"

# File of the mixture of Gaussians behind the Gaussian's preprocessing, which is included.
MIXTURE = "mixture.safetensors"

# Files of what the baselines needed, and of what is done to columns of a table.
NUMBERS, COLUMNS = "preprocess.json", "columns.json"


def fit_preprocessing(config: PreprocessFit, dataset: Dataset) -> Preprocessing:
    """Returns the preprocessing in front of a flow, and its base if that is a mixture."""
    options = config.options
    columns = column_names(dataset)
    with _option_names():
        preprocessing = fit(
            dataset.split("train"),
            **options.model_dump(exclude={"logit", "bounds", "match_after"}),
            margin=options.logit,
            exact=config.exact,
            pixels=config.pixels,
            bounds=bounds_by_index(options.bounds or {}, Columns.of_numbers(columns), None),
            seed=config.seed,
            names=columns,
            dtype=getattr(torch, config.dtype),
        )
    if not config.mixture:
        return preprocessing
    width = dataset.split("train").context_width
    splits = preprocessed_splits(dataset, preprocessing, config.seed)
    rows, validation = (y[:, width:] for y in splits)
    base = mixtures.fit_mixture(rows, validation, seed=config.seed, starts=mixtures.STARTS)
    return dataclasses.replace(preprocessing, base=base.trainable())


def column_names(dataset: Dataset) -> Sequence[str]:
    """Returns the names of the features; x1 … xD where the data have none."""
    columns = dataset.manifest.columns
    if columns is not None:
        return columns.features
    return [f"x{k + 1}" for k in range(dataset.split("train").width)]


def baseline(dataset: Dataset, options: PreprocessConfig) -> Preprocessing:
    """Returns the preprocessing of the Gaussian of greatest likelihood.

    Where the covariance is singular there is none; it is then shrunk as held-out rows choose.
    """
    train = dataset.split("train")
    settings = {"margin": options.logit, "scale": options.scale, "grids": options.grids}
    settings["names"] = column_names(dataset)
    with _option_names():
        try:
            return fit(train, **settings)
        except SingularCovariance:
            return fit(train, shrinkage=None, **settings)


@contextmanager
def _option_names() -> Iterator[None]:
    """Names the option of the command line in errors about an argument of the library."""
    try:
        yield
    except BadInput as error:
        section = "train" if error.option == "dtype" else "preprocess"
        raise dataclasses.replace(error, option=f"--{section}.{error.option}") from None


def preprocessed_splits(dataset: Dataset, preprocessing: Preprocessing, seed: int) -> list[Tensor]:
    """Returns preprocessed training and validation rows, their contexts in front of them."""
    splits = map(dataset.split, ("train", "validation"))
    return [mixtures.preprocessed_rows(preprocessing, split, seed=seed) for split in splits]
