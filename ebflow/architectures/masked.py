"""Nets of autoregressive layers."""

__all__ = ["autoregressive"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..bases import Base
from ..bijections import Autoregressive, Dense
from ..flow import Flow
from ..randomness import generator as derive
from .parts import finished, flattened


def autoregressive(
    shape: Sequence[int],
    *,
    depth: int = 3,
    hidden: int = 64,
    bins: int | None = None,
    bound: float | None = None,
    mixing: str = "reversal",
    context: int = 0,
    base: Base | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates ``depth`` autoregressive layers with dense ones between: for tables of few columns.

    Dense layers are free: their log-determinants belong to the normalizer, and score matching
    does without them. They start as random rotations, or as the reversal of the elements, with
    which the net starts as a masked autoregressive flow. A context enters the autoregressive
    layers' networks.

    Sources: Papamakarios et al. (2017), arXiv:1705.07057; with ``bins``, Durkan et al. (2019),
    arXiv:1906.04032.

    Arguments:
        depth: The number of autoregressive layers.
        hidden: The width of their networks' two hidden layers.
        bins: None: they scale and shift; else splines of that many bins, which are C¹ only
            (``bijections.coupling`` says what that means for ``ssm``).
        bound: The half-width of the splines' interval; None: 5.
        mixing: How dense layers start: ``rotation`` or ``reversal``.
    """
    size = math.prod(shape)
    if bound and not bins:
        raise ValueError(f"bound: found {bound}, expected None without bins")
    generator = generator or derive(0, "weights")
    layers = flattened(shape)
    for index in range(depth):
        if index:
            layers.append(Dense(_start(size, mixing, generator), torch.zeros(size)))
        net = {"hidden": hidden, "bins": bins, "bound": bound or 5.0, "context": context}
        layers.append(Autoregressive(size, **net, generator=generator))
    return finished(autoregressive, layers, locals())


def _start(size: int, mixing: str, generator: torch.Generator) -> Tensor:
    if mixing == "rotation":
        return nn.init.orthogonal_(torch.empty(size, size), generator=generator)
    if mixing == "reversal":
        return torch.eye(size).flip(0)
    raise ValueError(f"mixing: found {mixing!r}, expected one of rotation, reversal")
