r"""Small networks.

Score matching needs the derivatives of a conditioner, and training differentiates those. A smooth
activation (``swish``) has all derivatives. The second derivative of ``elu`` has a jump. The first
derivative of ``leaky_relu`` and ``relu`` has one, and their second is zero almost everywhere.

Weights start uniform in ±1/√(fan-in), as in PyTorch, but from a generator that the caller passes.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

SHARPNESS = 10.0  # β of ``softplus``, as in Srinivas and Fleuret (2021), arXiv:2006.09128
FEATURES = 8  # Numbers by which networks see a level of a category
ROUGH = 2.0  # Largest power of the frequency by which these fall
FEW_ROWS = 600  # Rows at which the power is 1


class Swish(nn.Module):
    """Creates y = x σ(β x) with a trainable β for every channel (dimension 1), 1 at the start.

    Source: Searching for Activation Functions (Ramachandran, Zoph, Le, 2017), arXiv:1710.05941.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x * self.beta.view(-1, *[1] * (x.ndim - 2)))


ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "elu": lambda channels: nn.ELU(),
    "leaky_relu": lambda channels: nn.LeakyReLU(0.1),
    "relu": lambda channels: nn.ReLU(),
    "softplus": lambda channels: nn.Softplus(SHARPNESS),
    "swish": Swish,
}


class Interleaved(nn.Module):
    """Creates the interleaved channels of several networks of one input, one of each in turn.

    From values with shape (B, C, *), the result has shape (B, C · networks, *).
    """

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks], 2).flatten(1, 2)


class ZeroConv2d(nn.Module):
    """Creates a 3×3 convolution times exp(3 g), zero at the start; each channel trains its g.

    Source: Glow (Kingma, Dhariwal, 2018), arXiv:1807.03039.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.log_gain = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=1) * torch.exp(3 * self.log_gain)


def waves(size: int, count: int) -> Tensor:
    """Returns √2 cos(π j (k + ½) / K) of levels k < K and frequencies j, with shape (K, count)."""
    places = (torch.arange(size) + 0.5) / size
    return math.sqrt(2) * torch.cos(math.pi * places[:, None] * torch.arange(1, count + 1))


class Levels(nn.Module):
    """An embedding of levels, by ``FEATURES`` numbers each.

    They start as waves over the codes. If there are few rows, fast waves start small: neighbouring
    codes may be alike, and a network of all waves would fit noise.

    There are m categories of so many levels (``sizes``), in so many training rows.
    """

    def __init__(self, sizes: Sequence[int], rows: float) -> None:
        super().__init__()
        first = [0, *accumulate(sizes)]
        self.last = nn.Buffer(torch.tensor(sizes) - 1, persistent=False)
        self.first = nn.Buffer(torch.tensor(first[:-1]), persistent=False)
        scale = torch.arange(1.0, FEATURES + 1) ** -min(ROUGH, FEW_ROWS / rows)
        self.table = nn.Parameter(torch.cat([waves(size, FEATURES) for size in sizes]) * scale)

    def codes(self, y: Tensor, start: int = 0) -> Tensor:
        """Returns the levels of the categories from ``start`` on, integers with shape (B, m)."""
        last = self.last[start : start + y.shape[1]]
        return y.detach().long().clamp(min=0).minimum(last)

    def forward(self, y: Tensor, start: int = 0) -> Tensor:
        """Returns the numbers of levels with shape (B, m · FEATURES)."""
        first = self.first[start : start + y.shape[1]]
        return F.embedding(self.codes(y, start) + first, self.table).flatten(1)


def perceptron(
    inputs: int,
    outputs: int,
    *,
    hidden: int,
    depth: int = 3,
    activation: str,
    generator: torch.Generator,
) -> nn.Module:
    """Returns a multilayer perceptron of ``depth`` hidden layers, with one of ``ACTIVATIONS``."""
    sizes, layers = [inputs, *[hidden] * depth], []
    for before, after in zip(sizes, sizes[1:], strict=False):
        linear = started(skip_init(nn.Linear, before, after), generator)
        layers += [linear, _activation(activation, after)]
    return nn.Sequential(*layers, started(skip_init(nn.Linear, hidden, outputs), generator))


def convnet(
    inputs: int, outputs: int, *, hidden: int, activation: str, generator: torch.Generator
) -> nn.Module:
    """Returns Glow's conditioner: convolutions of 3×3, 1×1 and 3×3, zero at the start."""
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
    """Returns the layer with weights and offsets that are uniform in ±1/√(fan-in)."""
    bound = layer.weight[0].numel() ** -0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


def zeroed(layer: nn.Module) -> nn.Module:
    """Returns the layer with weights and offsets of 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
