"""A network of structured matrices, which shows what an arbitrary matrix is worth."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..bases import Base
from ..bijections import (
    ActNorm,
    Bijection,
    Butterfly,
    Dense,
    LowRank,
    SmoothLeakyReLU,
    Triangular,
    TriangularFactors,
)
from ..flow import Flow
from ..randomness import generator as derive
from .parts import conditioned, finished, flattened

STRUCTURES = ("full", "lower", "upper", "two_triangles", "lu", "monarch", "low_rank")


def structured(
    shape: Sequence[int],
    *,
    depth: int = 10,
    structure: str = "full",
    rank: int = 2,
    generator: torch.Generator | None = None,
    context: int = 0,
    base: Base | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates blocks of a matrix, a smooth leaky ReLU and ``ActNorm``: the paper's 10-D network.

    A last matrix is behind ``depth`` blocks. A matrix of D elements has

    * ``full``: D² weights, orthogonal at the start;
    * ``lower``, ``upper``: D (D + 1) / 2 weights, at the start those of an orthogonal matrix;
    * ``two_triangles``: an upper triangle and then a lower one, of ones at the start, as in the
      paper's code;
    * ``lu``: D² weights, the factors of an orthogonal matrix at the start (``TriangularFactors``);
    * ``monarch``: D (p + q) weights, where p q = D and p is the nearest divisor to √D from below;
    * ``low_rank``: D (2 r + 1) weights, the identity at the start.

    Source: Chao et al. (2023), arXiv:2305.15267, for the first four. Its code multiplies rows from
    the right, so that its ``tril`` is ``upper`` here.

    Arguments:
        depth: The number of blocks.
        structure: One of those above.
        rank: r of ``low_rank``.
    """
    if structure not in STRUCTURES:
        raise ValueError(f"structure: found {structure!r}, expected one of {STRUCTURES}")
    size = math.prod(shape)
    source = generator or derive(0, "weights")
    matrices = partial(_matrices, size, structure, min(rank, size), source)
    layers = flattened(shape)
    for _ in range(depth):
        layers += [*matrices(), SmoothLeakyReLU(), ActNorm((size,))]
        layers += conditioned((size,), context, generator)
    layers += matrices()
    return finished(structured, layers, locals())


def _matrices(size: int, structure: str, rank: int, source: torch.Generator) -> list[Bijection]:
    """Returns the layers of one matrix."""
    if structure == "low_rank":
        return [LowRank(size, rank, source, bias=False)]
    if structure == "monarch":
        return [Butterfly(factors(size), source, bias=False)]
    weight = nn.init.orthogonal_(torch.empty(size, size), generator=source)
    kinds: dict[str, Callable[[Tensor], Bijection]] = {
        "full": lambda weight: Dense(weight, None),
        "lu": partial(TriangularFactors, bias=False),
        "lower": partial(Triangular, upper=False, bias=False),
        "upper": partial(Triangular, upper=True, bias=False),
    }
    if structure != "two_triangles":
        return [kinds[structure](weight)]
    return [kinds["upper"](weight), kinds["lower"](torch.ones_like(weight))]


def factors(size: int) -> tuple[int, int]:
    """Returns p and q with p q = ``size``, of which p is the nearest to the root from below."""
    smaller = max(p for p in range(1, math.isqrt(size) + 1) if size % p == 0)
    return smaller, size // smaller
