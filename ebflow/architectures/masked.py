"""Networks of autoregressive layers."""

import math
from collections.abc import Sequence

import torch

from ..bases import Base, StandardNormal
from ..bijections import Autoregressive, Categorical, Part, Permutation, ScaleShift, Spline
from ..flow import Flow
from ..randomness import generator as derive
from . import parts
from .parts import finished, flattened

LOG_SCALE = 7.0  # Bound of the log-scales of affine layers


def autoregressive(
    shape: Sequence[int],
    *,
    depth: int | None = None,
    hidden: int | None = None,
    blocks: int = 1,
    bins: int | None = None,
    mixing: str = "reversal",
    categories: Sequence[int] = (),
    counts: Sequence[Sequence[float]] | None = None,
    context: int = 0,
    base: Base | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates ``depth`` autoregressive layers with dense ones between: for tables of few columns.

    The dense layers are free: their log-determinants belong to the normalizer, and score matching
    does without them. They start as random rotations, or as the reversal of the elements, with
    which the flow starts as a masked autoregressive flow. The networks of the autoregressive
    layers see the context.

    Categories get exact probabilities, each given those before it, by a last layer. The other
    layers transform the other elements given the categories. So p(x) = p(c) p(x | c).

    Sources: Papamakarios et al. (2017), arXiv:1705.07057; with ``bins``, Durkan et al. (2019),
    arXiv:1906.04032.

    Arguments:
        depth: The number of autoregressive layers; None: 3, or 1 for one element.
        hidden, blocks: As in ``bijections.Autoregressive``.
        bins: None: layers scale and shift; else splines on (−5, 5) of that many bins, C¹ only
            (``bijections.univariate`` explains what that means for ``ssm``).
        mixing: The start of the dense layers: ``rotation`` or ``reversal``.
        categories: The number K of levels of each element that is one, whose levels are the
            intervals from 0 to K; 0 for other elements. Empty: there are none.
        counts: The rows of each level, for the start, of categories alone.

    Raises:
        ValueError: if there are categories, and the base is not N(0, I).
    """
    generator = generator or derive(0, "weights")
    transform = Spline(bins) if bins else ScaleShift(LOG_SCALE)
    network = {"hidden": hidden, "blocks": blocks, "context": context, "generator": generator}
    sizes = [size for size in categories if size]
    if sizes and not isinstance(base, StandardNormal | None):
        raise ValueError(f"base: found {type(base).__name__}, expected N(0, I) with categories")
    size, rows = math.prod(shape) - len(sizes), sum(counts[0]) if counts else math.inf
    layers = flattened(shape)
    if sizes:
        layers.append(Permutation(sorted(range(len(categories)), key=lambda k: categories[k] > 0)))
    for index in range((depth or (3 if size > 1 else 1)) if size else 0):
        if index:
            dense = parts.mixing(size, mixing, generator)
            layers.append(Part(dense, (size,)) if sizes else dense)
        layers.append(Autoregressive(size, transform, categories=sizes, rows=rows, **network))
    if sizes:
        layers.append(Categorical(sizes, counts=counts, **network))
    return finished(autoregressive, layers, locals())
