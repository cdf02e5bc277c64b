"""Weights of rows, as numbers of copies."""

__all__ = ["copies", "row_weights"]

import math

import numpy as np
import torch
from torch import Tensor

from ..randomness import generator
from .frames import ArrayLike


def row_weights(weights: ArrayLike | None, rows: int) -> Tensor | None:
    """Returns the weights of rows in float64 with shape (N,); None if all are alike.

    Raises:
        ValueError: if weights are not one finite number of 0 or more a row.
    """
    if weights is None:
        return None
    array = weights.cpu() if isinstance(weights, Tensor) else weights
    weight = torch.from_numpy(np.array(array, dtype=np.float64)).flatten()
    if len(weight) != rows or not weight.isfinite().all() or (weight < 0).any():
        raise ValueError(
            f"sample_weight: found {len(weight)} weights for {rows} rows, expected one finite "
            "number of 0 or more for each row"
        )
    if not weight.any():
        raise ValueError("sample_weight: found only weights of zero, expected some above zero")
    return weight


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
