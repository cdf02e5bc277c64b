"""Weights of rows, as numbers of copies."""

__all__ = ["copies", "weighted"]

import math
import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .randomness import generator
from .tables import ArrayLike


def weighted(
    x: ArrayLike,
    context: ArrayLike | None,
    weights: ArrayLike | Sequence[float],
    validation: float | int | tuple[ArrayLike, ...],
    seed: int,
) -> tuple[ArrayLike, ArrayLike | None, tuple[ArrayLike, ...]]:
    """Returns training rows, their contexts, and validation rows, repeated by their weights.

    Rows are split before they are repeated, so that no row is in both splits.

    Arguments:
        x: Rows: an array, a tensor or a pandas frame.
        context: Their contexts.
        weights: The weight of each row.
        validation: As of ``ebflow.fit``; validation rows of one's own have no weights.
        seed: The seed of the split and of the numbers of copies.

    Raises:
        ValueError: if weights are not one finite number of 0 or more a row, with a sum above 0.
    """
    weight = torch.as_tensor(weights, dtype=torch.float64).flatten()
    if len(weight) != len(x) or not weight.isfinite().all() or (weight < 0).any():
        raise ValueError(
            f"sample_weight: found {len(weight)} weights for {len(x)} rows, expected one finite "
            "number of 0 or more for each row"
        )
    rows = torch.randperm(len(x), generator=generator(seed, "validation"))
    rows = rows[weight[rows] > 0]
    if isinstance(validation, tuple):
        train = rows[copies(weight[rows], seed)]
        return _rows(x, train), _rows(context, train), validation
    share = not isinstance(validation, numbers.Integral)
    size = max(1, round(validation * len(rows))) if share else int(validation)
    if not 1 <= size <= len(rows) - 2:
        raise ValueError(
            f"validation: found {validation} of {len(rows)} rows with weights above 0, expected "
            "a number that leaves two rows or more to train on"
        )
    train, held_out = (part[copies(weight[part], seed)] for part in (rows[size:], rows[:size]))
    beside = () if context is None or _are_names(context) else (_rows(context, held_out),)
    return _rows(x, train), _rows(context, train), (_rows(x, held_out), *beside)


def copies(weights: Tensor, seed: int) -> Tensor:
    """Returns the numbers of rows, each as often as its weight says, in order.

    Whole weights are numbers of copies. Other weights are scaled to as many copies as rows:
    systematic sampling gives each row its weight, rounded up or down at random.
    """
    total = float(weights.sum())
    whole = bool((weights == weights.round()).all()) and total <= 10 * len(weights)
    scaled = weights if whole else weights * (len(weights) / total)
    start = 0.01 + 0.98 * float(torch.rand((), generator=generator(seed, "weights of rows")))
    ends = (scaled.cumsum(0) + start).floor().long()
    counts = ends.diff(prepend=ends.new_tensor([math.floor(start)]))
    return torch.arange(len(weights)).repeat_interleave(counts)


def _are_names(context: Any) -> bool:  # noqa: ANN401
    """Returns whether a context is the names of columns of ``x``."""
    parts = [context] if isinstance(context, str) else context
    return isinstance(parts, list | tuple) and all(isinstance(part, str) for part in parts)


def _rows(data: Any, rows: Tensor) -> Any:  # noqa: ANN401
    """Returns rows of an array, a tensor or a pandas frame."""
    if data is None or _are_names(data):
        return data
    if isinstance(data, Tensor):
        return data[rows.to(data.device)]
    return data.iloc[rows.numpy()] if hasattr(data, "iloc") else data[rows.numpy()]
