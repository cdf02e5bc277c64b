"""The paper's net for data in ten dimensions."""

__all__ = ["multimodal"]

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from ..bijections import ActNorm, Bijection, Dense, Reshape, SmoothLeakyReLU
from ..flow import Flow
from ..randomness import generator as derive


def multimodal(
    shape: Sequence[int] = (10,),
    *,
    depth: int = 10,
    structure: str = "full",
    alpha: float = 0.3,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates blocks of a matrix, a smooth leaky ReLU and ``ActNorm``: the paper's 10-D net.

    A last matrix stands behind ``depth`` blocks. It compares free matrices with triangular ones,
    whose determinants are cheap: with D elements, ``full``, ``tril`` and ``triu`` hold
    (``depth`` + 1) D² weights, of which a triangle uses D (D + 1) / 2, and ``trilu`` twice as
    many. Matrices start orthogonal, triangles as those of orthogonal ones.

    Source: Chao et al. (2023), arXiv:2305.15267. Its code multiplies rows from the right, so that
    its ``tril`` is ``triu`` here.

    Arguments:
        shape: The shape of an event.
        depth: The number of blocks.
        structure: ``full``, ``tril``, ``triu``, or ``trilu``: ``triu`` and then ``tril``, the
            latter with ones at the start, wherever the others have one matrix.
        alpha: The slope of the activations at −∞.
        generator: Where the start comes from; None: from seed 0.
        dtype: The parameters' type; torch's default otherwise.
    """
    size = math.prod(shape)
    matrices = partial(_matrices, size, structure, generator or derive(0, "weights"))
    layers: list[Bijection] = [Reshape(tuple(shape), (size,))] if len(shape) > 1 else []
    for _ in range(depth):
        layers += [*matrices(), SmoothLeakyReLU(alpha), ActNorm((size,))]
    layers += matrices()
    options = {"depth": depth, "structure": structure, "alpha": alpha}
    spec = {"architecture": "multimodal", "shape": list(shape), "options": options}
    return Flow(shape, layers, spec=spec).to(dtype or torch.get_default_dtype())


def _matrices(size: int, structure: str, generator: torch.Generator) -> list[Dense]:
    weight = nn.init.orthogonal_(torch.empty(size, size), generator=generator)
    if structure != "trilu":
        return [Dense(weight, None, structure=structure)]
    lower = Dense(torch.ones(size, size), None, structure="tril")
    return [Dense(weight, None, structure="triu"), lower]
