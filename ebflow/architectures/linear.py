"""Nets of linear layers with activations between: dense matrices, or the paper's convolutions."""

__all__ = ["convolutional", "dense", "structured"]

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..bases import Base
from ..bijections import (
    ActNorm,
    Bijection,
    Convolution,
    Dense,
    DenseLU,
    DenseWithInverse,
    SmoothLeakyReLU,
    Squeeze,
)
from ..flow import Flow
from ..networks import convnet
from ..randomness import generator as derive
from .shared import (
    activated,
    check_activation,
    conditioned,
    finished,
    flattened,
    image_coupling,
    normalise_spectrum,
    start_of,
)

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


def convolutional(
    shape: Sequence[int],
    *,
    kernel_size: int = 7,
    padding: str = "zero",
    blocks: int | None = None,
    depth: int = 2,
    activation: str = "smooth_leaky_relu",
    alpha: float = 0.3,
    residual: bool = True,
    centred: bool = False,
    cells: int = 16,
    terms: int = 6,
    reach: float | None = None,
    shared: bool = False,
    hidden: int = 0,
    sign: float = -1.0,
    bias: float = 0.0,
    generator: torch.Generator | None = None,
    noise: float = 0.0,
    calibrated: bool = False,
    spectral_norm: bool = False,
    context: int = 0,
    base: Base | None = None,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates ``blocks`` of ``depth`` convolutions with 2×2 squeezes between: the paper's CNN.

    A smooth leaky ReLU follows every convolution but the last; a context enters behind each, an
    affine map a channel. Every kernel starts as ``sign`` times the identity, negative in the
    paper, and every offset as ``bias``, there a very small number. With C channels a convolution
    has C² k² + C parameters, C four times as many in each block: 26,796 for MNIST, (1, 28, 28),
    and 240,912 for CIFAR-10, (3, 32, 32), both with k = 7.

    Source: Chao et al. (2023), arXiv:2305.15267.

    Options that are not told here are those of ``dense``.

    Arguments:
        shape: (C, H, W); H and W can be halved ``blocks`` − 1 times.
        kernel_size: The odd side k of every kernel.
        padding: ``zero``, ``circular`` or ``masked``, as in ``Convolution``.
        blocks: The number of image sizes; None: 3, or as many as H and W can be halved to.
        depth: The number of convolutions at each.
        activation: ``smooth_leaky_relu``, or ``spline`` or ``tanh``: a ``MonotoneSpline``, of
            ``cells`` · D parameters, or a ``MonotoneTanh``, of (3 ``terms`` + 1) · D, of every
            pixel behind every convolution, the last one too.
        shared: Whether the pixels of a channel share their learned activation.
        hidden: The channels h of conditioners (``networks.convnet`` with swish, 9 h C + h² + 9 h C
            weights): behind every convolution of C > 1 channels and its activation one half of the
            channels scales and shifts the other, and kernels start as the reversal of channels,
            so that the halves take turns; 0: no coupling.
        generator: Where the noise of the start, and of spectral normalisation's, comes from.
        noise: The standard deviation of the start's noise, times k √C for an entry of K.
        spectral_norm: Whether each K, as a matrix (C, C k²), is divided by its largest singular
            value, followed by one power iteration a training step; the paper's for CIFAR-10.
    """
    check_activation(activation)
    if spectral_norm and calibrated:
        raise ValueError("calibrated: found with spectral_norm, which undoes it; expected one")
    net = partial(convnet, hidden=hidden, activation="swish", generator=generator)
    start = partial(start_of, sign=sign, bias=bias, noise=noise, generator=generator)
    event, layers = tuple(shape), list[Bijection]()
    blocks = blocks or 1 + sum(all(side % 2**k == 0 for side in event[1:]) for k in (1, 2))
    for index in range(blocks * depth):
        if index and index % depth == 0:
            layers.append(Squeeze(event))
            event = layers[-1].target
        fixed = index and activation == "smooth_leaky_relu"
        if fixed:
            layers.append(SmoothLeakyReLU(alpha, residual=residual, centred=centred))
        behind = layers[-1] if fixed and calibrated else None
        identity = nn.init.dirac_(torch.empty(event[0], event[0], kernel_size, kernel_size))
        if hidden:
            identity = identity.flip(0)
        layers.append(Convolution(*start(identity, behind), event[1:], padding=padding))
        if spectral_norm:
            normalise_spectrum(layers[-1], generator)
        layers += conditioned(event, context, generator)
        layers += activated(
            activation, event, cells=cells, terms=terms, reach=reach, channels=shared
        )
        if hidden and event[0] > 1:
            layers.append(image_coupling(event[0], net, None, context))
    return finished(convolutional, layers, locals())
