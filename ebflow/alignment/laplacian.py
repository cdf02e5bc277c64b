r"""Value, Jacobian and Laplacian of a network in one forward sweep.

Of :math:`h = f(z(x))` with an activation f on every element,

.. math:: \partial_k h = f'(z) \, \partial_k z, \qquad
    \Delta h = f''(z) \sum_k (\partial_k z)^2 + f'(z) \, \Delta z,

and a linear layer maps z, its D tangents and its Laplacian alike. That is the exact trace of the
Hessian of every output at D + 2 products a layer; nested autograd takes D backward passes for one
output. The first linear layer sees the same D unit tangents for all of a batch, once.

Source: Forward Laplacian: A New Computational Framework for Neural Network-based Variational
Monte Carlo (Li et al., 2023), arXiv:2307.08214.
"""

__all__ = ["forward_laplacian"]

from functools import singledispatch

from torch import Tensor, nn
from torch.nn import functional as F

from ..bijections.base import units
from ..networks import Elu, Softplus

Jets = tuple[Tensor, Tensor, Tensor | None]
"""z with shape (B, *), its D tangents with shape (D, B, *) or (D, 1, *), and Δz or None for 0."""


def forward_laplacian(network: nn.Module, x: Tensor) -> Jets | None:
    """Returns y with shape (B, C), ∂y with shape (D, B, C) and Δy with shape (B, C).

    None for networks with layers that it does not know: it knows linear and average-pooling ones,
    reshapes, and the activations ``softplus`` and ``elu``.

    Arguments:
        network: The network.
        x: The points, with shape (B, D).
    """
    return _through(network, (x, units(x[0]).unsqueeze(1), None))


@singledispatch
def _through(layer: nn.Module, jets: Jets) -> Jets | None:
    return None


@_through.register
def _(layer: nn.Sequential, jets: Jets) -> Jets | None:
    for part in layer:
        jets = jets and _through(part, jets)
    return jets


@_through.register
def _(layer: nn.Linear, jets: Jets) -> Jets:
    z, tangents, bend = jets
    rest = None if bend is None else F.linear(bend, layer.weight)
    return layer(z), F.linear(tangents, layer.weight), rest


@_through.register
def _(layer: nn.Conv2d, jets: Jets) -> Jets:
    z, tangents, bend = jets
    rest = None if bend is None else _convolved(layer, bend)
    rows = _convolved(layer, tangents.flatten(0, 1))
    return layer(z), rows.unflatten(0, tangents.shape[:2]), rest


def _convolved(layer: nn.Conv2d, z: Tensor) -> Tensor:
    return F.conv2d(z, layer.weight, None, layer.stride, layer.padding)


@_through.register(nn.AvgPool2d)
@_through.register(nn.AdaptiveAvgPool2d)
@_through.register(nn.Flatten)
@_through.register(nn.Unflatten)
def _(layer: nn.Module, jets: Jets) -> Jets:
    z, tangents, bend = jets
    rows = layer(tangents.flatten(0, 1)).unflatten(0, tangents.shape[:2])
    return layer(z), rows, None if bend is None else layer(bend)


@_through.register(Softplus)
@_through.register(Elu)
def _(layer: nn.Module, jets: Jets) -> Jets:
    z, tangents, bend = jets
    y, first, second = layer.derivatives(z)
    rest = second * tangents.square().sum(0)
    return y, first * tangents, rest if bend is None else rest + first * bend
