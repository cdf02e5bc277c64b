"""What of a configuration is checked against its data and this machine before anything runs."""

__all__ = ["check"]

import os

import numpy as np

from ebflow.data import BUDGET
from ebflow.data.layout import Layout
from ebflow.errors import BadInput
from pipelines.config import (
    LEARNED_INVERSE,
    ClusterConfig,
    DensityConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
    TrainConfig,
)
from pipelines.config.bounds import bounds
from pipelines.density.source import counted, given, opened
from pipelines.engine import Source
from pipelines.training.nets import fits, net, options

LEAST_MARGIN = {"float32": 5e-7, "float64": 1e-15}
NOISED = ("dsm", "fd_ssm", "taylor_sm", "sml")


def check(config: DensityConfig) -> Source:
    """Returns the data's source.

    Raises:
        BadInput: Naming the option or file, what was found, and what was expected.
    """
    data = config.data
    reader = opened(data)
    counts = counted(reader, data)
    if config.train.batch_size > counts.train:
        raise BadInput(
            f"train.batch_size: found {config.train.batch_size}, "
            f"expected at most {counts.train} (the training rows of {reader.label})"
        )
    levels = reader.layout.levels
    _check_memory(config, counts.train, reader.layout)
    _check_domain(config, bounded=levels is not None)
    _check_changes(config.train, reader.layout.shape, levels)
    _check_slices(config.objective, reader.layout.width)
    _check_rank(config.preprocess, counts.train, reader.layout.width)
    _check_columns(config.preprocess, reader.layout.features, levels)
    if levels is not None:
        _check_margin(config)
    _check_model(config.model, reader.layout.shape, given(reader, counts, data))
    _check_inverse(config)
    _check_gpus(config.cluster)
    return Source(data.source, reader.digest)


def _check_memory(config: DensityConfig, rows: int, layout: Layout) -> None:
    """Raises BadInput if rows whose entries are drawn do not fit where they are held."""
    size = rows * layout.width * np.dtype(layout.dtype).itemsize
    if config.data.missing == "impute" and size > BUDGET:
        raise BadInput(
            f"data.missing: found impute with {size} bytes of training rows, expected at most "
            f"{BUDGET}, which are held in memory: use drop, fewer data.rows or data.columns"
        )


def _check_domain(config: DensityConfig, *, bounded: bool) -> None:
    """Raises BadInput if an objective would leave the range on which the logit is defined."""
    front, name = config.preprocess, config.objective.name
    logit = bounded and front.logit is not None
    if front.extended and not logit:
        raise BadInput("preprocess.extended: found True without a logit, expected False")
    if logit and not front.match_after and not front.extended and name in NOISED:
        raise BadInput(
            f"preprocess.match_after: found False with a logit and {name}, whose points leave the "
            "range of the data, expected True, preprocess.extended or preprocess.logit None"
        )


def _check_changes(train: TrainConfig, shape: tuple[int, ...], levels: int | None) -> None:
    """Raises BadInput if rows are no images to move, or are levels, which take no noise."""
    if train.augment != "none" and len(shape) not in (2, 3):
        raise BadInput(
            f"train.augment: found {train.augment} for examples of shape {shape}, expected "
            "images of shape (H, W) or (C, H, W)"
        )
    if train.noise and levels is not None:
        raise BadInput(
            f"train.noise: found {train.noise:g} for data of {levels} integer levels, expected 0"
        )


def _check_slices(config: ObjectiveConfig, width: int) -> None:
    """Raises BadInput if more orthogonal directions are asked for than there are."""
    if config.directions == "orthogonal" and config.slices > width:
        raise BadInput(
            f"objective.slices: found {config.slices}, expected at most {width} orthogonal "
            "directions (the number of features)"
        )


def _check_rank(front: PreprocessConfig, rows: int, width: int) -> None:
    if front.normalise == "whiten" and front.shrinkage == 0 and rows <= width:
        raise BadInput(
            f"preprocess.shrinkage: found 0 with {rows} training rows of {width} features, whose "
            "covariance is singular, expected shrinkage above 0"
        )


def _check_columns(front: PreprocessConfig, columns: list[str], levels: int | None) -> None:
    """Raises BadInput if steps of columns are asked for of integer data, or bounds of none."""
    for name in ("grids", "tails", "bounds"):
        if levels is not None and getattr(front, name):
            raise BadInput(
                f"preprocess.{name}: found {getattr(front, name)} for data of {levels} integer "
                "levels, expected columns of real numbers"
            )
    bounds(front.bounds or (), columns)


def _check_margin(config: DensityConfig) -> None:
    """A value just below the last level must not be rounded to 1, where the logit is infinite."""
    least = LEAST_MARGIN[config.train.dtype]
    margin = config.preprocess.logit
    if margin is not None and margin < least:
        raise BadInput(
            f"preprocess.logit: found {margin:g}, which {config.train.dtype} rounds away, "
            f"expected at least {least:g}"
        )


def _check_model(model: ModelConfig, shape: tuple[int, ...], context: int) -> None:
    """Raises BadInput if the architecture lacks an option that is set, or is not for the shape."""
    options(model)
    if fits(model, shape):
        return
    import torch

    from ebflow.randomness import generator

    model = model.model_copy(update={"base": "normal"})
    weights = generator(0, "check")
    net(model, shape, context=context, generator=weights, dtype=torch.float32)


def _check_inverse(config: DensityConfig) -> None:
    """Raises BadInput if an objective learns inverses that the flow does not have."""
    name, found = config.objective.name, config.model.linear
    if name in LEARNED_INVERSE and found != "learned_inverse":
        raise BadInput(
            f"model.linear: found {found} with {name}, expected learned_inverse, of a dense flow"
        )


def _check_gpus(config: ClusterConfig) -> None:
    """Raises BadInput if this machine lacks the GPUs; a cluster's are the cluster's to grant."""
    if not config.gpu or "RAY_ADDRESS" in os.environ:
        return
    import torch

    found = torch.cuda.device_count()
    if found < config.workers:
        raise BadInput(
            f"cluster.gpu: found {found} GPUs in this machine, expected one for each of "
            f"cluster.workers = {config.workers}"
        )
