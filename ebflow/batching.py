"""Division of many rows into parts of bounded memory."""

__all__ = ["BUDGET", "parts"]

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from torch import nn

BUDGET = 1 << 28
"""Bytes of intermediate values that one part may need."""

COPIES = 12
"""Intermediate values per output of a layer: an upper bound, measured with splines."""

FEW = 64
"""Rows that are one part in any case."""


def parts(
    count: int, layers: Iterable[nn.Module], event_shape: Sequence[int], itemsize: int
) -> list[slice]:
    """Divides ``count`` rows into slices, at least one.

    Sizes are multiples of 8, and up to 7 remaining rows join the last slice. Matrix products of
    only a few rows sum in another order, which would change the last bits of the results.

    Arguments:
        count: The number of rows.
        layers: The layers that process the rows.
        event_shape: The shape of one row.
        itemsize: Bytes of one element.
    """
    if count <= FEW:
        return [slice(0, count)]
    row = COPIES * itemsize * sum(_width(layer, event_shape) for layer in layers)
    size = max(FEW, BUDGET // max(row, 1) // 8 * 8)
    return [slice(*ends) for ends in pairwise([*range(0, count - 7, size), count])]


def _width(layer: nn.Module, event_shape: Sequence[int]) -> int:
    """Returns the number of elements of a layer's widest intermediate value."""
    elements = math.prod(event_shape)
    pixels = math.prod(event_shape[1:]) if len(event_shape) == 3 else elements
    widths = [elements]
    for weight in layer.parameters():
        if weight.ndim >= 2:
            widths.append(len(weight) * (pixels if weight.ndim == 4 else 1))
    return max(widths)
