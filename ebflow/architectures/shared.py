"""What the architectures share: how linear layers start, and how a net is closed."""

__all__ = ["ACTIVATIONS", "LEARNED", "activated", "check_activation", "conditioned", "finished",
           "flattened", "image_coupling", "normalise_spectrum", "start_of"]  # fmt: skip

import copy
import math
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..bijections import (
    Bijection,
    ConditionalAffine,
    Coupling,
    MonotoneSpline,
    MonotoneTanh,
    Reshape,
    ScaleShift,
    SmoothLeakyReLU,
    Spline,
)
from ..bijections.weighted import spectral_norm
from ..flow import Flow

LEARNED = ("spline", "tanh")
"""Learned activations, which stand behind every linear layer."""

ACTIVATIONS = ("smooth_leaky_relu", *LEARNED)
"""Activations of nets of linear layers: the paper's, ``MonotoneSpline`` and ``MonotoneTanh``."""


START = ("shape", "base", "dtype", "generator", "sign", "bias", "noise", "calibrated")
"""Options that a flow, its weights and its base tell: of these a spec keeps the shape alone."""


def check_activation(name: str) -> None:
    """Raises ValueError unless there is such an activation."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: found {name!r}, expected one of {', '.join(ACTIVATIONS)}")


def activated(
    name: str,
    event: tuple[int, ...],
    *,
    cells: int,
    terms: int,
    reach: float | None,
    channels: bool = False,
) -> list[Bijection]:
    """Returns the learned activation behind a linear layer; none if ``name`` is not of one."""
    options = {"channels": channels} if reach is None else {"channels": channels, "reach": reach}
    if name == "spline":
        return [MonotoneSpline(event, cells=cells, **options)]
    return [MonotoneTanh(event, terms=terms, **options)] if name == "tanh" else []


def flattened(shape: Sequence[int]) -> list[Bijection]:
    """Returns the layer that makes rows of events; none if they are rows."""
    return [Reshape(tuple(shape), (math.prod(shape),))] if len(shape) > 1 else []


def finished(
    architecture: Callable[..., Flow], layers: Sequence[Bijection], given: dict[str, Any]
) -> Flow:
    """Returns the flow of these layers, with the spec that rebuilds it.

    Arguments:
        architecture: The function that made the layers; all but ``START`` of its options are kept.
        layers: The layers.
        given: The options by name, as the variables of the call.
    """
    names = [name for name in signature(architecture).parameters if name not in START]
    options = {name: given[name] for name in names}
    shape, context, dtype = given["shape"], given["context"], given["dtype"]
    spec = {"architecture": architecture.__name__, "shape": list(shape), "options": options}
    base = copy.deepcopy(given["base"])  # a base that is trained is the flow's own
    flow = Flow(shape, layers, base=base, context=context, spec=spec)
    return flow.to(dtype or torch.get_default_dtype())


def conditioned(
    shape: tuple[int, ...], context: int, generator: torch.Generator | None
) -> list[Bijection]:
    """Returns the layer by which a context enters behind a linear one; none without context."""
    return [ConditionalAffine(shape, context, generator=generator)] if context else []


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
    spectral_norm(layer, generator or torch.Generator().manual_seed(0))


def image_coupling(
    channels: int, net: Callable[[int, int], nn.Module], bins: int | None, context: int
) -> Coupling:
    """Returns a coupling of two halves of the channels, by splines or by affine maps."""
    halves = (channels // 2, channels - channels // 2)
    transform = Spline(bins) if bins else ScaleShift(bound=2.0)
    conditioner = net(halves[0] + context, halves[1] * transform.count)
    return Coupling(halves, conditioner, transform, context=context)
