"""Checks of a configuration with its data and this machine, before anything runs."""

import os
from collections.abc import Iterator

import numpy as np

from ebflow.errors import BadInput
from ebflow.recipes import BUDGET
from pipelines.config import LEARNED_INVERSE, ClusterConfig, DensityConfig, ModelConfig
from pipelines.config.source import counted, opened
from pipelines.data.reader import Reader
from pipelines.engine import Source
from pipelines.training.nets import fits, net, options

LEAST_MARGIN = {"float32": 5e-7, "float64": 1e-15}


def check(config: DensityConfig) -> Source:
    """Returns the data's source.

    Raises:
        BadInput: Naming the option or file, what was found, and what was expected.
    """
    reader = opened(config.data)
    counts = counted(reader, config.data)
    batch = config.train.batch_size
    if batch > counts.train:
        most = f"at most {counts.train} (the training rows of {reader.label})"
        raise BadInput(option="--train.batch-size", found=batch, expected=most)
    for problem in _problems(config, reader, counts.train):
        raise problem
    config.preprocess.bounded(reader.features)
    _check_model(config.model, reader.shape, reader.context_width)
    return Source(config.data.source, reader.digest)


def _problems(config: DensityConfig, reader: Reader, rows: int) -> Iterator[BadInput]:
    """Yields which options do not suit the data and their number of training rows."""
    yield from _of_rows(config, reader, rows)
    if reader.levels is not None:
        yield from _of_levels(config, reader.levels)
    name, found = config.objective.name, config.model.linear
    if name in LEARNED_INVERSE and found != "learned_inverse":
        expected = "learned_inverse, of a dense flow"
        yield BadInput(option="--model.linear", found=f"{found} with {name}", expected=expected)
    yield from _of_gpus(config.cluster)


def _of_rows(config: DensityConfig, reader: Reader, rows: int) -> Iterator[BadInput]:
    objective, preprocess, width = config.objective, config.preprocess, reader.width
    size = rows * width * np.dtype(reader.dtype).itemsize
    if config.data.missing == "impute" and size > BUDGET:
        yield BadInput(
            option="--data.missing",
            found=f"impute with {size} bytes of training rows",
            expected=f"at most {BUDGET}, which are held in memory",
            hint="Use drop, fewer --data.rows or --data.columns",
        )
    if config.train.augment != "none" and len(reader.shape) not in (2, 3):
        yield BadInput(
            option="--train.augment",
            found=f"{config.train.augment} for examples of shape {reader.shape}",
            expected="images of shape (H, W) or (C, H, W)",
        )
    if objective.directions == "orthogonal" and objective.slices > width:
        most = f"at most {width} orthogonal directions (the number of features)"
        yield BadInput(option="--objective.slices", found=objective.slices, expected=most)
    if preprocess.normalize == "whiten" and preprocess.shrinkage == 0 and rows <= width:
        found = f"0 with {rows} training rows of {width} features, whose covariance is singular"
        yield BadInput(option="--preprocess.shrinkage", found=found, expected="above 0")


def _of_levels(config: DensityConfig, levels: int) -> Iterator[BadInput]:
    """Yields what is for real numbers alone; and a margin that the last level is rounded to."""
    preprocess, train, data = config.preprocess, config.train, f"data of {levels} integer levels"
    if train.noise:
        found = f"{train.noise:g} for {data}"
        yield BadInput(option="--train.noise", found=found, expected="0")
    for name in ("grids", "tails", "bounds"):
        if found := getattr(preprocess, name):
            option, found = f"--preprocess.{name}", f"{found} for {data}"
            yield BadInput(option=option, found=found, expected="columns of real numbers")
    least = LEAST_MARGIN[train.dtype]
    if preprocess.logit is not None and preprocess.logit < least:
        found = f"{preprocess.logit:g}, which {train.dtype} rounds away"
        yield BadInput(option="--preprocess.logit", found=found, expected=f"at least {least:g}")


def _of_gpus(config: ClusterConfig) -> Iterator[BadInput]:
    """Yields if this machine lacks the GPUs; a cluster's are the cluster's to grant."""
    if not config.gpu or "RAY_ADDRESS" in os.environ:
        return
    import torch

    found = torch.cuda.device_count()
    if found < config.workers:
        expected = f"one for each of --cluster.workers = {config.workers}"
        yield BadInput(
            option="--cluster.gpu", found=f"{found} GPUs in this machine", expected=expected
        )


def _check_model(model: ModelConfig, shape: tuple[int, ...], context: int) -> None:
    """Raises BadInput if the architecture lacks an option that is set, or is not for the shape."""
    options(model)
    if fits(model):
        return
    import torch

    from ebflow.randomness import generator

    model = model.changed(base="normal")
    weights = generator(0, "check")
    net(model, shape, context=context, generator=weights, dtype=torch.float32)
