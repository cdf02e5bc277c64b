"""Named flows, as functions of shape and depth."""

__all__ = ["ARCHITECTURES", "convolutional", "dense"]

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as normalise_spectrum

from .bijections import Bijection, Convolution, Dense, Reshape, SmoothLeakyReLU, Squeeze
from .flow import Flow


def dense(
    shape: Sequence[int],
    *,
    depth: int = 2,
    alpha: float = 0.3,
    residual: bool = False,
    sign: float = 1.0,
    bias: float = 0.0,
    generator: torch.Generator | None = None,
    noise: float = 0.0,
    calibrated: bool = False,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates ``depth`` dense layers with smooth leaky ReLUs between: the paper's FC model.

    Every W starts as ``sign`` · I and every b as ``bias``; the paper has −1 and 1. It has
    ``depth`` · (D² + D) parameters: 1,230,880 for MNIST (D = 784, depth 2).

    Source: Chao et al. (2023), arXiv:2305.15267; the net of Gresele et al. (2020),
    arXiv:2006.15090.

    Arguments:
        shape: The shape of an event; D is its number of elements.
        depth: The number of dense layers L.
        alpha: The slope of the activations at −∞.
        residual: Whether activations add their input.
        sign: The factor of the identity at the start.
        bias: The start of every offset.
        generator: Where the noise of the start comes from.
        noise: The standard deviation of the start's noise, times √D for an entry of W.
        calibrated: Whether each W behind an activation is divided by the activation's standard
            deviation on N(0, 1), and its mean taken off: whitened data then start with latents
            of zero mean and unit variance, and a likelihood near the Gaussian's.
        dtype: The parameters' type; torch's default otherwise.
    """
    size = math.prod(shape)
    start = partial(_start, sign=sign, bias=bias, noise=noise, generator=generator)
    layers: list[Bijection] = [Reshape(tuple(shape), (size,))] if len(shape) > 1 else []
    for index in range(depth):
        if index:
            layers.append(SmoothLeakyReLU(alpha, residual=residual))
        behind = layers[-1] if index and calibrated else None
        layers.append(Dense(*start(torch.eye(size), behind)))
    options = {"depth": depth, "alpha": alpha, "residual": residual}
    spec = {"architecture": "dense", "shape": list(shape), "options": options}
    return Flow(shape, layers, spec=spec).to(dtype or torch.get_default_dtype())


def convolutional(
    shape: Sequence[int],
    *,
    kernel_size: int = 7,
    padding: str = "zero",
    blocks: int = 3,
    depth: int = 2,
    alpha: float = 0.3,
    residual: bool = True,
    sign: float = -1.0,
    bias: float = 0.0,
    generator: torch.Generator | None = None,
    noise: float = 0.0,
    calibrated: bool = False,
    spectral_norm: bool = False,
    dtype: torch.dtype | None = None,
) -> Flow:
    """Creates ``blocks`` of ``depth`` convolutions with 2×2 squeezes between: the paper's CNN.

    A smooth leaky ReLU follows every convolution but the last. Every kernel starts as ``sign``
    times the identity and every offset as ``bias``. With C channels a convolution has C² k² + C
    parameters, C four times as many in each block: 26,796 for MNIST, (1, 28, 28), and 240,912
    for CIFAR-10, (3, 32, 32), both with k = 7.

    Source: Chao et al. (2023), arXiv:2305.15267.

    Arguments:
        shape: (C, H, W); H and W can be halved ``blocks`` − 1 times.
        kernel_size: The odd side k of every kernel.
        padding: ``zero``, ``circular`` or ``masked``, as in ``Convolution``.
        blocks: The number of image sizes.
        depth: The number of convolutions at each.
        alpha: The slope of the activations at −∞.
        residual: Whether activations add their input.
        sign: The factor of the identity at the start; negative in the paper.
        bias: The start of every offset; in the paper very small numbers.
        generator: Where the noise of the start, and of spectral normalisation's, comes from.
        noise: The standard deviation of the start's noise, times k √C for an entry of K.
        calibrated: Whether each K behind an activation is divided by the activation's standard
            deviation on N(0, 1), and its mean taken off.
        spectral_norm: Whether each K, as a matrix (C, C k²), is divided by its largest singular
            value, followed by one power iteration a training step; the paper's for CIFAR-10.
        dtype: The parameters' type; torch's default otherwise.
    """
    if spectral_norm and calibrated:
        raise ValueError("calibrated: found with spectral_norm, which undoes it; expected one")
    start = partial(_start, sign=sign, bias=bias, noise=noise, generator=generator)
    event, layers = tuple(shape), list[Bijection]()
    for index in range(blocks * depth):
        if index and index % depth == 0:
            layers.append(Squeeze(event))
            event = layers[-1].target
        if index:
            layers.append(SmoothLeakyReLU(alpha, residual=residual))
        behind = layers[-1] if index and calibrated else None
        identity = nn.init.dirac_(torch.empty(event[0], event[0], kernel_size, kernel_size))
        layers.append(Convolution(*start(identity, behind), event[1:], padding=padding))
        if spectral_norm:
            _normalise_spectrum(layers[-1], generator)
    options = {
        "kernel_size": kernel_size,
        "padding": padding,
        "blocks": blocks,
        "depth": depth,
        "alpha": alpha,
        "residual": residual,
        "spectral_norm": spectral_norm,
    }
    spec = {"architecture": "convolutional", "shape": list(shape), "options": options}
    return Flow(shape, layers, spec=spec).to(dtype or torch.get_default_dtype())


def _start(
    identity: Tensor,
    behind: SmoothLeakyReLU | None,
    *,
    sign: float,
    bias: float,
    noise: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Returns the weight and the offset of a new layer, calibrated to the activation ``behind``.

    The noise is ``noise`` · N(0, 1 / fan-in) an entry.
    """
    weight, offset = sign * identity, torch.full((len(identity),), bias)
    if noise:
        draw = torch.randn(identity.shape, generator=generator)
        weight += noise / math.sqrt(identity[0].numel()) * draw
    if behind is None:
        return weight, offset
    mean, deviation = _moments(behind)
    return weight / deviation, offset - sign * mean / deviation


def _normalise_spectrum(layer: nn.Module, generator: torch.Generator | None) -> None:
    """Normalises ``layer.weight``; the power iteration starts from ``generator``, or from 0."""
    seed = 0 if generator is None else int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        normalise_spectrum(layer)


def _moments(activation: SmoothLeakyReLU) -> tuple[float, float]:
    """Returns the mean and the standard deviation of f(z), z ~ N(0, 1), by Gauss quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    values = activation.value(torch.as_tensor(nodes)).numpy()
    mean = np.average(values, weights=weights)
    return float(mean), float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))


ARCHITECTURES = {"convolutional": convolutional, "dense": dense}
