r"""Second-order Taylor polynomials, carried through maps: the one mechanism of second derivatives.

The curve :math:`x + t v + \tfrac{t^2}{2} a` becomes under :math:`y = f(x)`

.. math:: f(x) + t \, f' v + \tfrac{t^2}{2} \left( f''[v, v] + f' a \right).

A linear map takes its three coefficients alike; an activation takes
:math:`f(x), \; f' v, \; f'' v^2 + f' a`. That is three products a layer, and what autograd nested
twice would give at many times the cost. Bijections push jets by ``Bijection.jet``; ``through``
pushes them through networks: the conditioners of couplings, and classifiers.

With all D unit directions as tangents, and *total* second coefficients, summed over them, one
sweep gives the value, the Jacobian and the Laplacian, at D + 2 products a layer.

Source of the latter: Forward Laplacian: A New Computational Framework for Neural Network-based
Variational Monte Carlo (Li et al., 2023), arXiv:2307.08214.
"""

__all__ = ["Jet", "laplacian", "through", "units"]

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .networks import Elu, Interleaved, Softplus, Swish


class Jet(NamedTuple):
    """The second-order Taylor polynomial x + t v + t²/2 a of a curve; ``a = None`` is zero.

    ``x`` has shape (B, *event), ``v`` and ``a`` (B, *event) or (K, B, *event).
    """

    x: Tensor
    v: Tensor
    a: Tensor | None


def units(event: Tensor) -> Tensor:
    """Returns the D unit vectors of the space of an ``event``, with shape (D, *event)."""
    size = event.numel()
    return torch.eye(size, dtype=event.dtype, device=event.device).view(size, *event.shape)


def laplacian(network: nn.Module, x: Tensor) -> Jet | None:
    """Returns y with shape (B, C), ∂y with shape (D, B, C) and Δy with shape (B, C).

    None for networks with layers that ``through`` does not know. The first linear layer sees the
    same D unit tangents for all of a batch, once.

    Arguments:
        network: The network.
        x: The points, with shape (B, D).
    """
    return through(network, Jet(x, units(x[0]).unsqueeze(1), None), True)


@singledispatch
def through(layer: nn.Module, jet: Jet, total: bool = False) -> Jet | None:
    """Returns the jet behind a network; None for kinds of layers it does not know.

    It knows linear layers, convolutions, average pooling, reshapes, and the activations
    ``swish`` (of vectors), ``elu`` and ``softplus``.

    Arguments:
        layer: The network, or a layer.
        jet: The jet in front of it.
        total: Whether the second coefficient is the sum over the K tangents, with shape (B, *).
    """
    return None


@through.register
def _(layer: nn.Sequential, jet: Jet, total: bool = False) -> Jet | None:
    for part in layer:
        jet = jet and through(part, jet, total)
    return jet


@through.register
def _(layer: nn.Linear, jet: Jet, total: bool = False) -> Jet:
    return _linear(layer, lambda t: F.linear(t, layer.weight), jet)


@through.register
def _(layer: nn.Conv2d, jet: Jet, total: bool = False) -> Jet:
    def act(t: Tensor) -> Tensor:
        return F.conv2d(t, layer.weight, None, layer.stride, layer.padding)

    return _linear(layer, act, jet)


@through.register(nn.AvgPool2d)
@through.register(nn.AdaptiveAvgPool2d)
@through.register(nn.Flatten)
@through.register(nn.Unflatten)
def _(layer: nn.Module, jet: Jet, total: bool = False) -> Jet:
    return _linear(layer, layer, jet)


@through.register(Swish)
@through.register(Softplus)
@through.register(Elu)
def _(layer: nn.Module, jet: Jet, total: bool = False) -> Jet:
    y, first, second = layer.derivatives(jet.x)
    bend = second * (jet.v.square().sum(0) if total else jet.v * jet.v)
    return Jet(y, first * jet.v, bend if jet.a is None else torch.addcmul(bend, first, jet.a))


@through.register
def _(layer: Interleaved, jet: Jet, total: bool = False) -> Jet | None:
    parts = [through(part, jet, total) for part in layer.networks]
    if any(part is None for part in parts):
        return None
    return Jet(*(_interleaved(found) for found in zip(*parts, strict=True)))


def _interleaved(parts: Sequence[Tensor | None]) -> Tensor | None:
    if any(part is None for part in parts):  # the networks are linear
        return None
    return torch.stack(parts, -1).flatten(-2)


def _linear(layer: nn.Module, act: Callable[[Tensor], Tensor], jet: Jet) -> Jet:
    """Pushes a jet through a layer whose map without its offset is ``act``."""
    dims = jet.x.ndim

    def coefficient(t: Tensor) -> Tensor:
        if t.ndim == dims or isinstance(layer, nn.Linear):
            return act(t)
        return act(t.flatten(0, 1)).unflatten(0, t.shape[:2])

    return Jet(layer(jet.x), coefficient(jet.v), None if jet.a is None else coefficient(jet.a))
