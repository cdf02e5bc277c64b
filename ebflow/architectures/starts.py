"""How linear layers start: as identities, with noise, calibrated to what is before them."""

__all__ = ["normalise_spectrum", "start_of"]

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ..bijections import SmoothLeakyReLU


def start_of(
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


def _moments(activation: SmoothLeakyReLU) -> tuple[float, float]:
    """Returns the mean and the standard deviation of f(z), z ~ N(0, 1), by Gauss quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    values = activation.value(torch.as_tensor(nodes)).numpy()
    mean = np.average(values, weights=weights)
    return float(mean), float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))


def normalise_spectrum(layer: nn.Module, generator: torch.Generator | None) -> None:
    """Normalises ``layer.weight``; the power iteration starts from ``generator``, or from 0."""
    seed = 0 if generator is None else int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        spectral_norm(layer)
