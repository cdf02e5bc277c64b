"""Nets of dense matrices, activations of every element between them."""

__all__ = ["dense", "structured"]

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..bases import Base
from ..bijections import ActNorm, Bijection, Dense, DenseLU, DenseWithInverse, SmoothLeakyReLU
from ..flow import Flow
from ..randomness import generator as derive
from .shared import activated, check_activation, conditioned, finished, flattened, start_of

LINEAR: dict[str, Callable[[Tensor, Tensor], Bijection]] = {
    "full": Dense,
    "lu": DenseLU,
    "learned_inverse": DenseWithInverse,
}
"""Dense layers by the form of their weight."""


def dense(
    shape: Sequence[int],
    *,
    depth: int = 2,
    linear: str = "full",
    activation: str = "smooth_leaky_relu",
    alpha: float = 0.3,
    residual: bool = False,
    centred: bool = False,
    cells: int = 16,
    terms: int = 6,
    reach: float | None = None,
    sign: float = 1.0,
    bias: float = 0.0,
    generator: torch.Generator | None = None,
    noise: float = 0.0,
    calibrated: bool = False,
    context: int = 0,
    base: Base | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates ``depth`` dense layers with activations of every element: the paper's FC model.

    Smooth leaky ReLUs stand between the layers, as in the paper; learned activations behind each
    of them, the last one too, and start as the identity or near it. A context enters behind every
    dense layer, by a ``ConditionalAffine``.

    Every W starts as ``sign`` · I and every b as ``bias``; the paper has −1 and 1. It has
    ``depth`` · (D² + D) parameters: 1,230,880 for MNIST (D = 784, depth 2); and ``depth`` ·
    ``cells`` · D of splines, or (3 ``terms`` + 1) · D of tanh.

    Source: Chao et al. (2023), arXiv:2305.15267; the net of Gresele et al. (2020),
    arXiv:2006.15090.

    Arguments:
        shape: The shape of an event; D is its number of elements.
        depth: The number of dense layers L.
        linear: The form of W: ``full``; ``lu``, its factors; or ``learned_inverse``, beside which
            an R near W⁻¹ is learned.
        activation: ``smooth_leaky_relu``; ``spline``: a ``MonotoneSpline``; ``tanh``: a
            ``MonotoneTanh``.
        alpha: The slope of smooth leaky ReLUs at −∞.
        residual: Whether they add their input.
        centred: Whether they pass through 0 with slope 1, so that there is no mean and no scale
            for the next layer to undo; score matching alone then keeps its mass.
        cells: The cells of a spline's grid.
        terms: The number of tanh's steps.
        reach: The half-width of the grid, or of where tanh's steps start; None: 4, and 3.
        sign: The factor of the identity at the start.
        bias: The start of every offset.
        generator: Where the noise of the start comes from.
        noise: The standard deviation of the start's noise, times √D for an entry of W.
        calibrated: Whether each W behind an activation is divided by the activation's standard
            deviation on N(0, 1), and its mean taken off: whitened data then start with latents
            of zero mean and unit variance, and a likelihood near the Gaussian's.
        context: The number of elements of a context; 0: none.
        base: The density of latents; None: N(0, I).
        dtype: The parameters' type; torch's default otherwise.
    """
    check_activation(activation)
    if linear not in LINEAR:
        raise ValueError(f"linear: found {linear!r}, expected one of {', '.join(LINEAR)}")
    size = math.prod(shape)
    start = partial(start_of, sign=sign, bias=bias, noise=noise, generator=generator)
    layers = flattened(shape)
    for index in range(depth):
        fixed = index and activation == "smooth_leaky_relu"
        if fixed:
            layers.append(SmoothLeakyReLU(alpha, residual=residual, centred=centred))
        behind = layers[-1] if fixed and calibrated else None
        layers.append(LINEAR[linear](*start(torch.eye(size), behind)))
        layers += conditioned((size,), context, generator)
        layers += activated(activation, (size,), cells=cells, terms=terms, reach=reach)
    return finished(dense, layers, locals())


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
        context: The number of elements of a context; 0: none.
        base: The density of latents; None: N(0, I).
        dtype: The parameters' type; torch's default otherwise.
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
        return [Dense(weight, None, structure=structure)]
    lower = Dense(torch.ones(size, size), None, structure="tril")
    return [Dense(weight, None, structure="triu"), lower]
