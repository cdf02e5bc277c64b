r"""Many residual networks at once, each a denoiser at every noise.

.. math:: D(x, \sigma) = c_{skip}\, x + c_{out}\, F(c_{in}\, x, \tfrac14 \log \sigma), \qquad
    c_{skip} = \frac{\sigma_d^2}{\sigma^2 + \sigma_d^2}, \quad
    c_{out} = \sigma \sigma_d\, c_{in}, \quad c_{in} = (\sigma^2 + \sigma_d^2)^{-1/2}

so that F has inputs and targets of unit variance at every noise, for centred data of deviation
:math:`\sigma_d`. F is of blocks :math:`h + B\, \mathrm{silu}(A\, \mathrm{norm}(h) + C e)`, with
the norm of a layer without weights and e the sines and cosines of the noise. All E networks are
one, as in ``denoisers``; a step of B examples costs E × 6 B P FLOP for P weights a network.

Source: Elucidating the Design Space of Diffusion-Based Generative Models (Karras, Aittala, Aila,
Laine, 2022), arXiv:2206.00364, for scales, weights of the loss and the input of the noise.
"""

__all__ = ["ResidualDenoisers"]

import math

import torch
from torch import Tensor, nn

from .denoisers import Level, start

WAVES = 16
"""Frequencies that the noise is told by."""


class ResidualDenoisers(nn.Module):
    """Creates E independent networks; the last layer and those of blocks begin at 0.

    Arguments:
        count: E.
        size: The dimension d.
        deviation: σ_d, of the centred data.
        width: The width of the blocks.
        blocks: Their number.
        generator: Where the weights come from.
    """

    def __init__(
        self,
        count: int,
        size: int,
        *,
        deviation: float = 1.0,
        width: int = 128,
        blocks: int = 3,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.deviation = deviation

        def linear(fan_in: int, fan_out: int) -> nn.Parameter:
            return start((count, fan_in, fan_out), fan_in, generator)

        self.first, self.last = linear(size, width), _zeros(count, width, size)
        self.told = nn.ParameterList(linear(2 * WAVES, width) for _ in range(blocks))
        self.up = nn.ParameterList(linear(width, width) for _ in range(blocks))
        self.down = nn.ParameterList(_zeros(count, width, width) for _ in range(blocks))
        self.offsets = nn.ParameterList(_zeros(count, 1, width) for _ in range(blocks))
        self.begin, self.end = _zeros(count, 1, width), _zeros(count, 1, size)

    @property
    def count(self) -> int:
        """E."""
        return len(self.first)

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Returns D(x, σ) with shape (E, B, d), for ``x`` of that shape and σ like (E, B, 1)."""
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        c_in = (sigma**2 + self.deviation**2).rsqrt()
        wave = _waves(0.25 * sigma.log()).expand(self.count, -1, -1)
        h = (c_in * x) @ self.first + self.begin
        blocks = zip(self.told, self.up, self.down, self.offsets, strict=True)
        for told, up, down, offset in blocks:
            normed = nn.functional.layer_norm(h, h.shape[-1:])
            h = h + nn.functional.silu(normed @ up + wave @ told + offset) @ down
        f = h @ self.last + self.end
        return (self.deviation * c_in) ** 2 * x + sigma * self.deviation * c_in * f

    def weight(self, sigma: Tensor | float) -> Tensor | float:
        """Returns the weight of the squared error at σ: that of F is then 1."""
        return 1 / sigma**2 + 1 / self.deviation**2

    def at(self, sigma: float) -> Level:
        """Returns the scores at one noise."""
        return Level(self, sigma)

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """Returns D with shape (E, B, d), for ``x`` with shape (B, d) or (E, B, d)."""
        return self(x.expand(self.count, *x.shape[-2:]), sigma)


def _waves(level: Tensor) -> Tensor:
    """Returns sines and cosines of a level with shape (..., 1), periods from 8 down to 1/4."""
    level = level.reshape(1, 1, 1) if level.ndim == 0 else level
    rates = 2 * math.pi * torch.logspace(-3, 2, WAVES, base=2).to(level)
    return torch.cat([(level * rates).sin(), (level * rates).cos()], -1)


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))
