"""Networks of matrices or convolutions, with activations."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..bases import Base
from ..bijections import (
    Convolution,
    Dense,
    DenseWithInverse,
    MonotoneSpline,
    ScaleShift,
    SmoothLeakyReLU,
    Squeeze,
)
from ..bijections.base import Bijection
from ..flow import Flow
from ..networks import convnet
from .parts import conditioned, finished, flattened, halved, spectral

ACTIVATIONS = ("smooth_leaky_relu", "spline")
LINEAR = {"full": Dense, "learned_inverse": DenseWithInverse}  # Dense layers by their form


def dense(
    shape: Sequence[int],
    *,
    depth: int = 2,
    linear: str = "full",
    activation: str = "smooth_leaky_relu",
    residual: bool = False,
    centred: bool = False,
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

    Smooth leaky ReLUs are between the layers, as in the paper. Splines follow every layer, the
    last one too. A ``ConditionalAffine`` after every dense layer adds the context.

    Every W starts as ``sign`` · I and every b as ``bias``; the paper has −1 and 1. There are
    ``depth`` · (D² + D) parameters: 1,230,880 for MNIST (D = 784, depth 2); and 16 ``depth`` · D
    of splines.

    Source: Chao et al. (2023), arXiv:2305.15267; the network of Gresele et al. (2020),
    arXiv:2006.15090.

    Arguments:
        linear: ``full``, or ``learned_inverse``: beside each W an R near W⁻¹ is learned, by the
            objectives of ``ebflow.learned_inverse``.
        activation: ``smooth_leaky_relu``, or ``spline``: a ``MonotoneSpline``.
        residual, centred: As in ``SmoothLeakyReLU``; score matching alone loses less mass with
            ``centred``.
        generator: Source of the noise in initial weights; None: PyTorch's global state.
        noise: √D times the standard deviation of this noise.
        calibrated: True if each W after an activation is divided by the standard deviation of the
            activation of N(0, 1), and its mean is subtracted. Latents of whitened data then start
            with zero mean and unit variance, and the likelihood near the Gaussian's.
    """
    if linear not in LINEAR:
        raise ValueError(f"linear: found {linear!r}, expected one of {', '.join(LINEAR)}")
    size, arguments = math.prod(shape), locals()
    layers = flattened(shape)
    for index in range(depth):
        layers += _linear(LINEAR[linear], torch.eye(size), (size,), arguments, first=not index)
    return finished(dense, layers, arguments)


def convolutional(
    shape: Sequence[int],
    *,
    kernel_size: int = 7,
    blocks: int | None = None,
    depth: int = 2,
    activation: str = "smooth_leaky_relu",
    residual: bool = True,
    centred: bool = False,
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

    A smooth leaky ReLU follows every convolution but the last. A context enters after each, by one
    affine map per channel. Every kernel starts as ``sign`` times the identity, negative in the
    paper, and every offset as ``bias``, a very small number in the paper. With C channels a
    convolution has C² k² + C parameters; C grows four times in each block. With k = 7 these are
    26,796 for MNIST, (1, 28, 28), and 240,912 for CIFAR-10, (3, 32, 32).

    Source: Chao et al. (2023), arXiv:2305.15267.

    Options that are not listed here are those of ``dense``.

    Arguments:
        shape: (C, H, W); H and W can be halved ``blocks`` − 1 times.
        kernel_size: The odd side k of every kernel.
        blocks: The number of image sizes; None: 3, or as many as H and W can be halved to.
        activation: As in ``dense``; a spline of every pixel has 16 D parameters.
        hidden: The channels h of conditioners (``networks.convnet`` with swish, 9 h C + h² + 9 h C
            weights). After every convolution of C > 1 channels and its activation, one half of the
            channels scales and shifts the other. Kernels start as the reversal of channels, so
            that the halves take turns. 0: no coupling.
        generator: Source of the noise in initial weights and spectral normalization.
        noise: k √C times the standard deviation of the noise in initial kernels.
        spectral_norm: True if each K, as a matrix (C, C k²), is divided by its largest singular
            value, updated by one power iteration per training step; the paper's for CIFAR-10.
    """
    if spectral_norm and calibrated:
        raise ValueError("calibrated: found with spectral_norm, which undoes it; expected one")
    blocks = blocks or 1 + sum(all(side % 2**k == 0 for side in shape[1:]) for k in (1, 2))
    network = partial(convnet, hidden=hidden, activation="swish", generator=generator)
    event, arguments, layers = tuple(shape), locals(), list[Bijection]()
    for index in range(blocks * depth):
        if index and index % depth == 0:
            layers.append(Squeeze(event))
            event = layers[-1].target
        identity = nn.init.dirac_(torch.empty(event[0], event[0], kernel_size, kernel_size))
        kernel = identity.flip(0) if hidden else identity
        make = partial(Convolution, size=event[1:])
        layers += _linear(make, kernel, event, arguments, first=not index)
        if hidden and event[0] > 1:
            layers.append(halved(event[0], network, ScaleShift(bound=2.0), context))
    return finished(convolutional, layers, arguments)


def _linear(
    make: Callable[[Tensor, Tensor], Bijection],
    identity: Tensor,
    event: tuple[int, ...],
    arguments: dict[str, Any],
    *,
    first: bool,
) -> Iterator[Bijection]:
    """Yields the layer ``make(weight, offset)``, with its activation and its context."""
    name, before = arguments["activation"], None
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: found {name!r}, expected one of {', '.join(ACTIVATIONS)}")
    if name == "smooth_leaky_relu" and not first:
        relu = SmoothLeakyReLU(residual=arguments["residual"], centred=arguments["centred"])
        before = relu if arguments["calibrated"] else None
        yield relu
    layer = make(*_start_of(identity, before, arguments))
    yield spectral(layer, arguments["generator"]) if arguments.get("spectral_norm") else layer
    yield from conditioned(event, arguments["context"], arguments["generator"])
    if name == "spline":
        yield MonotoneSpline(event)


def _start_of(
    identity: Tensor, before: SmoothLeakyReLU | None, arguments: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Returns the initial weight and offset of a layer, calibrated to the activation before it."""
    sign, noise = arguments["sign"], arguments["noise"]
    weight, offset = sign * identity, torch.full((len(identity),), arguments["bias"])
    if noise:
        normal = torch.randn(identity.shape, generator=arguments["generator"])
        weight += noise / math.sqrt(identity[0].numel()) * normal
    if before is None:
        return weight, offset
    mean, deviation = _moments(before)
    return weight / deviation, offset - sign * mean / deviation


def _moments(activation: SmoothLeakyReLU) -> tuple[float, float]:
    """Returns the mean and the standard deviation of f(z), z ~ N(0, 1), by Gauss quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    values = activation.value(torch.as_tensor(nodes)).numpy()
    mean = np.average(values, weights=weights)
    return float(mean), float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
