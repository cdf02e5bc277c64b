r"""Small networks, and the Taylor polynomials that go through them.

Score matching needs the derivatives of a conditioner, and training differentiates those. Smooth
activations (``swish``) have all of them; ``elu`` has a jump in the second, ``leaky_relu`` in the
first, its second being zero almost everywhere.

Weights start uniform in ±1/√(fan-in), as PyTorch's own, but from a given generator.

A *jet* is a second-order Taylor polynomial, carried through maps: the one mechanism of second
derivatives. The curve :math:`x + t v + \tfrac{t^2}{2} a` becomes under :math:`y = f(x)`

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

__all__ = ["ACTIVATIONS", "SHARPNESS", "Elu", "Interleaved", "Jet", "Softplus", "Swish",
           "ZeroConv2d", "convnet", "laplacian", "perceptron", "started", "through",
           "units"]  # fmt: skip

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

SHARPNESS = 10.0
"""β of ``softplus``, as in Srinivas and Fleuret (2021), arXiv:2006.09128."""


class Swish(nn.Module):
    """Creates y = x σ(β x) with a trainable β, 1 at the start, for every channel.

    Source: Searching for Activation Functions (Ramachandran, Zoph, Le, 2017), arXiv:1710.05941.

    Arguments:
        channels: The size of dimension 1 of x.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Returns x σ(β x)."""
        return x * torch.sigmoid(x * self.beta.view(-1, *[1] * (x.ndim - 2)))

    def derivatives(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns f, f' and f'' at ``x`` with shape (B, C)."""
        beta = self.beta.view(-1, *[1] * (x.ndim - 2))
        gate = torch.sigmoid(beta * x)
        y, slope = x * gate, beta * (1 - gate)
        first = torch.addcmul(gate, slope, y)
        return y, first, slope * (first + gate * (1 - beta * y))


class Elu(nn.ELU):
    """Creates y = x above 0 and eˣ − 1 below."""

    def derivatives(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns f, f' and f'' at ``x``."""
        y, below = self(x), x <= 0
        return y, torch.where(below, y + 1, 1), torch.where(below, y + 1, 0)


class Softplus(nn.Softplus):
    """Creates y = log(1 + exp(β x)) / β, the smooth ReLU."""

    def derivatives(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns f, f' and f'' at ``x``."""
        gate = torch.sigmoid(self.beta * x)
        return self(x), gate, self.beta * gate * (1 - gate)


ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "elu": lambda channels: Elu(),
    "leaky_relu": lambda channels: nn.LeakyReLU(0.1),
    "softplus": lambda channels: Softplus(SHARPNESS),
    "swish": Swish,
}


class Interleaved(nn.Module):
    """Creates the channels of several networks of one input, one of each in turn.

    Arguments:
        networks: Networks with values of shape (B, C, *); the result is (B, C · networks, *).
    """

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the interleaved values."""
        return torch.stack([network(x) for network in self.networks], 2).flatten(1, 2)


class ZeroConv2d(nn.Module):
    """Creates a 3×3 convolution times exp(3 g) with a trainable g a channel, zero at the start.

    Source: Glow: Generative Flow with Invertible 1×1 Convolutions (Kingma, Dhariwal, 2018),
    arXiv:1807.03039.

    Arguments:
        inputs: The number of channels of x.
        outputs: The number of channels of the value.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.log_gain = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Returns (w ∗ x + b) exp(3 g)."""
        return F.conv2d(x, self.weight, self.bias, padding=1) * torch.exp(3 * self.log_gain)


def perceptron(
    inputs: int,
    outputs: int,
    *,
    hidden: int,
    depth: int = 3,
    activation: str,
    generator: torch.Generator,
) -> nn.Module:
    """Returns a multilayer perceptron.

    Arguments:
        inputs: The number of elements of x.
        outputs: The number of elements of the value.
        hidden: The width of the hidden layers.
        depth: Their number.
        activation: A name in ``ACTIVATIONS``.
        generator: Where the weights come from.
    """
    sizes, layers = [inputs, *[hidden] * depth], []
    for before, after in zip(sizes, sizes[1:], strict=False):
        linear = started(skip_init(nn.Linear, before, after), generator)
        layers += [linear, _activation(activation, after)]
    return nn.Sequential(*layers, started(skip_init(nn.Linear, hidden, outputs), generator))


def convnet(
    inputs: int, outputs: int, *, hidden: int, activation: str, generator: torch.Generator
) -> nn.Module:
    """Returns Glow's conditioner: convolutions of 3×3, 1×1 and 3×3, zero at the start.

    Arguments:
        inputs: The number of channels of x.
        outputs: The number of channels of the value.
        hidden: That of the two hidden layers.
        activation: A name in ``ACTIVATIONS``.
        generator: Where the weights come from.
    """
    return nn.Sequential(
        started(skip_init(nn.Conv2d, inputs, hidden, 3, padding=1), generator),
        _activation(activation, hidden),
        started(skip_init(nn.Conv2d, hidden, hidden, 1), generator),
        _activation(activation, hidden),
        ZeroConv2d(hidden, outputs),
    )


def _activation(name: str, channels: int) -> nn.Module:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: found {name!r}, expected one of {sorted(ACTIVATIONS)}")
    return ACTIVATIONS[name](channels)


def started(layer: nn.Module, generator: torch.Generator) -> nn.Module:
    """Returns a layer with weights uniform in ±1/√(fan-in), as PyTorch's own."""
    bound = layer.weight[0].numel() ** -0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


class Jet(NamedTuple):
    """The second-order Taylor polynomial x + t v + t²/2 a of a curve; ``a = None`` is zero.

    ``x`` has shape (B, *event), ``v`` and ``a`` (B, *event) or (K, B, *event).
    """

    x: Tensor
    v: Tensor
    a: Tensor | None

    @property
    def bend(self) -> Tensor:
        """``a``, written out where it is zero."""
        return torch.zeros_like(self.v) if self.a is None else self.a

    def each(self, change: Callable[[Tensor], Tensor]) -> "Jet":
        """Returns the coefficients changed alike."""
        return Jet(*(None if t is None else change(t) for t in self))


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
        return layer._conv_forward(t, layer.weight, None)

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
    known = next((part for part in parts if part is not None), None)
    if known is None:  # all networks are linear
        return None
    whole = [torch.zeros_like(known) if part is None else part for part in parts]
    return torch.stack(torch.broadcast_tensors(*whole), -1).flatten(-2)


def _linear(layer: nn.Module, act: Callable[[Tensor], Tensor], jet: Jet) -> Jet:
    """Pushes a jet through a layer whose map without its offset is ``act``."""
    dims = jet.x.ndim

    def coefficient(t: Tensor) -> Tensor:
        if t.ndim == dims or isinstance(layer, nn.Linear):
            return act(t)
        return act(t.flatten(0, 1)).unflatten(0, t.shape[:2])

    return Jet(layer(jet.x), coefficient(jet.v), None if jet.a is None else coefficient(jet.a))
