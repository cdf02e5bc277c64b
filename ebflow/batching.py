"""Division of many rows into parts of bounded memory."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from torch import nn

BUDGET = 1 << 28  #: Bytes of intermediate values that one part may need

# Intermediate values per output of a layer: measured with splines, whose scores need most.
COPIES = 24
FEW = 64  # Rows that are one part even if they need more memory
ALIGNED = 32  # Number of rows that vector instructions process without a remainder


def parts(
    count: int,
    layers: Iterable[nn.Module],
    event_shape: Sequence[int],
    itemsize: int,
    *,
    period: int = 1,
) -> list[slice]:
    """Divides ``count`` rows into slices, at least one, whose memory is bounded.

    Scores have the same bits as without division: slices have multiples of 32 rows, and up to 15
    remaining rows join the last one, as processors treat remainders by other functions. The last
    bits may differ in samples, and if B is no multiple of 32 and 32 B rows exceed a part.

    Arguments:
        count: The number of rows.
        layers: The layers that process the rows.
        event_shape: The shape of one row.
        itemsize: Bytes of one element.
        period: The number B of contexts, of which row i has number i mod B. Slices hold whole
            periods, or lie within one.
    """
    if count <= FEW:
        return [slice(0, count)]
    row = COPIES * itemsize * sum(_width(layer, event_shape) for layer in layers)
    size = max(FEW, BUDGET // max(row, 1))
    if period > size:
        return [s for first in range(0, count, period) for s in _slices(first, period, size)]
    unit = math.lcm(ALIGNED, period)
    return _slices(0, count, size, unit if unit <= size else math.lcm(4, period))


def _slices(first: int, count: int, size: int, unit: int = ALIGNED) -> list[slice]:
    starts = range(first, first + max(count - 15, 1), max(1, size // unit) * unit)
    return [slice(*ends) for ends in pairwise([*starts, first + count])]


def _width(layer: nn.Module, event_shape: Sequence[int]) -> int:
    """Returns the number of elements of a layer's widest intermediate value."""
    elements = math.prod(event_shape)
    pixels = math.prod(event_shape[1:]) if len(event_shape) == 3 else elements
    weights = (weight for weight in layer.parameters() if weight.ndim >= 2)
    return max([elements, *(len(w) * (pixels if w.ndim == 4 else 1) for w in weights)])
