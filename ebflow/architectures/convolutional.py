"""The paper's CNN, with learned activations and couplings by option."""

__all__ = ["convolutional"]

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from ..bases import Base
from ..bijections import Bijection, Convolution, SmoothLeakyReLU, Squeeze
from ..flow import Flow
from ..networks import convnet
from .shared import (
    activated,
    check_activation,
    conditioned,
    finished,
    image_coupling,
    normalise_spectrum,
    start_of,
)


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
    affine map a channel. Every kernel starts as ``sign`` times the identity and every offset as
    ``bias``. With C channels a convolution has C² k² + C
    parameters, C four times as many in each block: 26,796 for MNIST, (1, 28, 28), and 240,912
    for CIFAR-10, (3, 32, 32), both with k = 7.

    Source: Chao et al. (2023), arXiv:2305.15267.

    Arguments:
        shape: (C, H, W); H and W can be halved ``blocks`` − 1 times.
        kernel_size: The odd side k of every kernel.
        padding: ``zero``, ``circular`` or ``masked``, as in ``Convolution``.
        blocks: The number of image sizes; None: 3, or as many as H and W can be halved to.
        depth: The number of convolutions at each.
        activation: ``smooth_leaky_relu``, or ``spline`` or ``tanh``: a ``MonotoneSpline``, of
            ``cells`` · D parameters, or a ``MonotoneTanh``, of (3 ``terms`` + 1) · D, of every
            pixel behind every convolution, the last one too.
        alpha: The slope of smooth leaky ReLUs at −∞.
        residual: Whether they add their input.
        centred: Whether they pass through 0 with slope 1, so that there is no mean and no scale
            for the next layer to undo; score matching alone then keeps its mass.
        cells: The cells of a spline's grid.
        terms: The number of tanh's steps.
        reach: The half-width of the grid, or of where tanh's steps start; None: 4, and 3.
        shared: Whether the pixels of a channel share their learned activation.
        hidden: The channels h of conditioners (``networks.convnet`` with swish, 9 h C + h² + 9 h C
            weights): behind every convolution of C > 1 channels and its activation one half of the
            channels scales and shifts the other, and kernels start as the reversal of channels,
            so that the halves take turns; 0: no coupling.
        sign: The factor of the identity at the start; negative in the paper.
        bias: The start of every offset; in the paper very small numbers.
        generator: Where the noise of the start, and of spectral normalisation's, comes from.
        noise: The standard deviation of the start's noise, times k √C for an entry of K.
        calibrated: Whether each K behind an activation is divided by the activation's standard
            deviation on N(0, 1), and its mean taken off.
        spectral_norm: Whether each K, as a matrix (C, C k²), is divided by its largest singular
            value, followed by one power iteration a training step; the paper's for CIFAR-10.
        context: The number of elements of a context; 0: none.
        base: The density of latents; None: N(0, I).
        dtype: The parameters' type; torch's default otherwise.
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
