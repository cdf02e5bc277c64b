"""Forms of flows that the paper's experiments compare, beside the library's.

Importing this module adds ``structured`` to ``ebflow.architectures``, and learned inverses and LU
factors to its dense layers.
"""

__all__ = ["ARCHITECTURES", "load", "structured"]

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import pipelines.training.learned_inverses  # noqa: F401  (adds a form of dense layers)
from ebflow import checkpoint
from ebflow.architectures import ARCHITECTURES
from ebflow.architectures.parts import conditioned, finished, flattened
from ebflow.bases import Base
from ebflow.bijections import ActNorm, Dense, SmoothLeakyReLU
from ebflow.flow import Flow
from ebflow.randomness import generator as derive
from pipelines.training.triangular import Triangle  # and adds another form


def load(folder: str | Path) -> Flow:
    """Returns the flow of a checkpoint, of any of these forms."""
    return checkpoint.load(folder)


def structured(
    shape: Sequence[int] = (10,),
    *,
    depth: int = 10,
    structure: str = "full",
    alpha: float = 0.3,
    generator: torch.Generator | None = None,
    context: int = 0,
    base: Base | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates blocks of a matrix, a smooth leaky ReLU and ``ActNorm``: the paper's 10-D model.

    A matrix follows the last of ``depth`` blocks. The model compares full matrices with triangular
    ones. With D elements, ``full``, ``tril`` and ``triu`` have
    (``depth`` + 1) D² weights, of which a triangle uses D (D + 1) / 2, and ``trilu`` twice as
    many. Matrices start orthogonal, triangles as parts of orthogonal ones.

    Source: Chao et al. (2023), arXiv:2305.15267. Its code multiplies rows from the right, so its
    ``tril`` is ``triu`` here.

    Arguments:
        depth: The number of blocks.
        structure: ``full``, ``tril``, ``triu``, or ``trilu``: two matrices in the place of one,
            ``triu`` and then ``tril``, which starts with ones.
        alpha: The slope of the activations at −∞.
    """
    size = math.prod(shape)
    matrices = partial(_matrices, size, structure, generator or derive(0, "weights"))
    layers = flattened(shape)
    for _ in range(depth):
        layers += [*matrices(), SmoothLeakyReLU(alpha), ActNorm((size,))]
        layers += conditioned((size,), context, generator)
    layers += matrices()
    return finished(structured, layers, locals())


def _matrices(size: int, structure: str, generator: torch.Generator) -> list[Dense]:
    weight = nn.init.orthogonal_(torch.empty(size, size), generator=generator)
    if structure != "trilu":
        return [_matrix(weight, structure)]
    return [_matrix(weight, "triu"), _matrix(torch.ones(size, size), "tril")]


def _matrix(weight: Tensor, structure: str) -> Dense:
    layer = Dense(weight, None)
    if structure != "full":
        parametrize.register_parametrization(layer, "weight", Triangle(structure))
    return layer


ARCHITECTURES["structured"] = structured
