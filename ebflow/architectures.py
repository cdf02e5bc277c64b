"""Named flows, as functions of shape and depth."""

__all__ = ["ARCHITECTURES", "dense"]

import math
from collections.abc import Sequence

import numpy as np
import torch

from .bijections import Bijection, Dense, Reshape, SmoothLeakyReLU
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
    mean, deviation = _moments(SmoothLeakyReLU(alpha, residual=residual))
    layers: list[Bijection] = [Reshape(tuple(shape), (size,))] if len(shape) > 1 else []
    for index in range(depth):
        if index:
            layers.append(SmoothLeakyReLU(alpha, residual=residual))
        weight = sign * torch.eye(size)
        if noise:
            weight += noise / math.sqrt(size) * torch.randn(size, size, generator=generator)
        offset = torch.full((size,), bias)
        if index and calibrated:
            weight, offset = weight / deviation, offset - sign * mean / deviation
        layers.append(Dense(weight, offset))
    options = {"depth": depth, "alpha": alpha, "residual": residual}
    spec = {"architecture": "dense", "shape": list(shape), "options": options}
    return Flow(shape, layers, spec=spec).to(dtype or torch.get_default_dtype())


def _moments(activation: SmoothLeakyReLU) -> tuple[float, float]:
    """Returns the mean and the standard deviation of f(z), z ~ N(0, 1), by Gauss quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    values = activation.value(torch.as_tensor(nodes)).numpy()
    mean = np.average(values, weights=weights)
    return float(mean), float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))


ARCHITECTURES = {"dense": dense}
