r"""Ensembles: many networks that denoise, D(x, σ), the mean of :math:`x_0` given x, at once.

All E networks are one module: a layer is one batched matrix product. The score is
:math:`s = (D - x)/\sigma^2`.

Source: Elucidating the Design Space of Diffusion-Based Generative Models (Karras, Aittala, Aila,
Laine, 2022), arXiv:2206.00364. Scales, weights of the loss and the input of the noise are its.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F
from torch.nn.utils import skip_init

from ..networks import perceptron, started, zeroed
from .instances import HALF

WAVES = 16  # The number of frequencies that encode the noise level


class Ensemble(nn.Module, ABC):
    """E independent denoisers D(x, σ) in one module, of E networks of one architecture."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        weights, constants = stack_module_state(networks)
        self.count, self.names = len(networks), [*weights, *constants]
        self.weights = nn.ParameterList(weights.values())
        self.constants = nn.Module()
        for index, constant in enumerate(constants.values()):
            self.constants.register_buffer(str(index), constant)
        template = networks[0].to("meta")
        self.batched = vmap(lambda state, *inputs: functional_call(template, state, inputs))

    @property
    def size(self) -> int:
        """The number of weights P of one network."""
        return sum(weight[0].numel() for weight in self.weights)

    def networks(self, *inputs: Tensor) -> Tensor:
        """Returns the outputs of all networks, for inputs with shape (E, B, ...)."""
        state = dict(zip(self.names, [*self.weights, *self.constants.buffers()], strict=True))
        return self.batched(state, *inputs)

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Returns D(x, σ) with shape (E, B, d), for ``x`` of that shape and σ like (E, B, 1)."""

    @abstractmethod
    def weight(self, sigma: Tensor | float) -> Tensor | float:
        """Returns the weight of the squared error of D at σ in the loss."""

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """Returns D with shape (E, B, d), for ``x`` with shape (B, d) or (E, B, d)."""
        return self(x.expand(self.count, *x.shape[-2:]), sigma)

    def score(self, x: Tensor, sigma: float) -> Tensor:
        """Returns s with shape (E, B, d), for ``x`` with shape (B, d) or (E, B, d)."""
        return (self.denoise(x, sigma) - x) / sigma**2


class RectifiedDenoisers(Ensemble):
    r"""E ReLU networks f for a bulk with a far mode, weights uniform in ±1/√(fan-in).

    .. math:: D(x, \sigma) = R\, f(x/R, \; x/(3 \sqrt V), \; \log(\sigma / \sigma_0))
        + x\, \tau^2 / V, \qquad V = \tau^2 + \sigma^2, \quad \tau = \sigma_0 = \sqrt{1/2}.

    If R ≫ σ, the input needs both scales, and the output the scale R. The last term is the score
    of the bulk.
    ``count`` is E, ``size`` is d, ``radius`` is R; ``width`` and ``depth`` are those of the hidden
    layers.
    """

    def __init__(
        self,
        count: int,
        size: int,
        *,
        radius: float,
        width: int = 32,
        depth: int = 2,
        generator: torch.Generator,
    ) -> None:
        options = {"hidden": width, "depth": depth, "activation": "relu", "generator": generator}
        super().__init__([perceptron(2 * size + 1, size, **options) for _ in range(count)])
        self.radius = radius

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        sigma = torch.as_tensor(sigma, dtype=x.dtype)
        variance = HALF**2 + sigma**2
        level = (sigma / HALF).log().expand(*x.shape[:2], 1)
        inputs = torch.cat([x / self.radius, x / (3 * variance.sqrt()), level], -1)
        return self.radius * self.networks(inputs) + x * (HALF**2 / variance)

    def weight(self, sigma: Tensor | float) -> Tensor | float:
        """Returns 1/σ²: training minimizes E ‖σ s + z‖²."""
        return 1 / sigma**2


class PreconditionedDenoisers(Ensemble):
    r"""E networks F for centered data of unit variance.

    .. math:: D(x, \sigma) = c^2 x + \sigma c\, F(c\, x, \tfrac14 \log \sigma), \qquad
        c = (\sigma^2 + 1)^{-1/2},

    so F has inputs and targets of unit variance at every noise level. F is 0 at the start.
    """

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        scale = (sigma**2 + 1).rsqrt()
        waves = _waves(0.25 * sigma.log()).expand(self.count, -1, -1)
        return scale**2 * x + sigma * scale * self.networks(scale * x, waves)

    def weight(self, sigma: Tensor | float) -> Tensor | float:
        """Returns 1 + 1/σ², with which the squared error of F has weight 1."""
        return 1 / sigma**2 + 1


class ResidualNetwork(nn.Module):
    """Residual blocks of dense layers."""

    def __init__(self, size: int, width: int, blocks: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = started(skip_init(nn.Linear, size, width), generator)
        self.last = zeroed(skip_init(nn.Linear, width, size))
        self.blocks = nn.ModuleList(_Block(width, generator) for _ in range(blocks))

    def forward(self, x: Tensor, waves: Tensor) -> Tensor:
        """Returns F for ``x`` with shape (B, d) and the waves of their noise levels."""
        h = self.first(x)
        for block in self.blocks:
            h = block(h, waves)
        return self.last(h)


class _Block(nn.Module):
    """h + B silu(A norm(h) + C e), with a norm without weights; B is 0 at the start."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.up = started(skip_init(nn.Linear, width, width, bias=False), generator)
        self.down = zeroed(skip_init(nn.Linear, width, width, bias=False))
        self.conditioning = started(skip_init(nn.Linear, 2 * WAVES, width), generator)

    def forward(self, h: Tensor, waves: Tensor) -> Tensor:
        normed = F.layer_norm(h, h.shape[1:])
        return h + self.down(F.silu(self.up(normed) + self.conditioning(waves)))


def _waves(level: Tensor) -> Tensor:
    """Returns sines and cosines of a level with shape (..., 1), periods from 8 down to 1/4."""
    level = level.reshape(1, 1, 1) if level.ndim == 0 else level
    rates = 2 * math.pi * torch.logspace(-3, 2, WAVES, base=2).to(level)
    return torch.cat([(level * rates).sin(), (level * rates).cos()], -1)
