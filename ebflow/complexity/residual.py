r"""Many denoisers at once, for all noise levels: residual networks and U-Nets.

.. math:: D(x, \sigma) = c_{skip}\, x + c_{out}\, F(c_{in}\, x, \tfrac14 \log \sigma), \qquad
    c_{skip} = \frac{\sigma_d^2}{\sigma^2 + \sigma_d^2}, \quad
    c_{out} = \sigma \sigma_d\, c_{in}, \quad c_{in} = (\sigma^2 + \sigma_d^2)^{-1/2}

so F has inputs and targets of unit variance at every noise level, for centered data of standard
deviation :math:`\sigma_d`. All E networks are one module, as in ``denoisers``: a layer is one
batched matrix product, or one convolution of E groups. A step of B examples costs E × 6 B FLOP per
weight of F.

Source: Elucidating the Design Space of Diffusion-Based Generative Models (Karras, Aittala, Aila,
Laine, 2022), arXiv:2206.00364, for scales, weights of the loss and the input of the noise; U-Net:
Convolutional Networks for Biomedical Image Segmentation (Ronneberger, Fischer, Brox, 2015),
arXiv:1505.04597.
"""

__all__ = ["ResidualDenoisers", "UNetDenoisers"]

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .denoisers import Level, start

WAVES = 16
"""The number of frequencies that encode the noise level."""


class Preconditioned(nn.Module, ABC):
    """E networks F, scaled to denoisers of centered data with a standard deviation."""

    def __init__(self, count: int, deviation: float) -> None:
        super().__init__()
        self.count, self.deviation = count, deviation

    @abstractmethod
    def network(self, x: Tensor, wave: Tensor) -> Tensor:
        """Returns F with shape (E, B, d), for ``x`` of that shape, ``wave`` (E, B or 1, 2 W)."""

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Returns D(x, σ) with shape (E, B, d), for ``x`` of that shape and σ like (E, B, 1)."""
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        c_in = (sigma**2 + self.deviation**2).rsqrt()
        wave = _waves(0.25 * sigma.log()).expand(self.count, -1, -1)
        f = self.network(c_in * x, wave)
        return (self.deviation * c_in) ** 2 * x + sigma * self.deviation * c_in * f

    def weight(self, sigma: Tensor | float) -> Tensor | float:
        """Returns the weight of the squared error of D at σ, with which that of F has weight 1."""
        return 1 / sigma**2 + 1 / self.deviation**2

    def at(self, sigma: float) -> Level:
        """Returns the scores at one noise level."""
        return Level(self, sigma)

    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """Returns D with shape (E, B, d), for ``x`` with shape (B, d) or (E, B, d)."""
        return self(x.expand(self.count, *x.shape[-2:]), sigma)


class ResidualDenoisers(Preconditioned):
    r"""Creates E independent networks; the last layer, and that of each block, start at 0.

    Blocks are :math:`h + B\, \mathrm{silu}(A\, \mathrm{norm}(h) + C e)`, with a layer norm
    without weights; e are sines and cosines of the noise level.

    Arguments:
        count: E.
        size: The dimension d.
        deviation: σ_d, the standard deviation of the data.
        width: The width of the blocks.
        blocks: The number of blocks.
        generator: Source of the weights.
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
        super().__init__(count, deviation)

        def linear(fan_in: int, fan_out: int) -> nn.Parameter:
            return start((count, fan_in, fan_out), fan_in, generator)

        self.first, self.last = linear(size, width), _zeros(count, width, size)
        self.conditioning = nn.ParameterList(linear(2 * WAVES, width) for _ in range(blocks))
        self.up = nn.ParameterList(linear(width, width) for _ in range(blocks))
        self.down = nn.ParameterList(_zeros(count, width, width) for _ in range(blocks))
        self.offsets = nn.ParameterList(_zeros(count, 1, width) for _ in range(blocks))
        self.begin, self.end = _zeros(count, 1, width), _zeros(count, 1, size)

    def network(self, x: Tensor, wave: Tensor) -> Tensor:
        """Returns F."""
        h = x @ self.first + self.begin
        blocks = zip(self.conditioning, self.up, self.down, self.offsets, strict=True)
        for conditioning, up, down, offset in blocks:
            normed = nn.functional.layer_norm(h, h.shape[-1:])
            h = h + nn.functional.silu(normed @ up + wave @ conditioning + offset) @ down
        return h @ self.last + self.end


class UNetDenoisers(Preconditioned):
    """Creates E independent U-Nets of two resolutions, for square images of one channel.

    One block works on pixels, two on averages of 2×2 pixels with twice as many channels, and one
    on pixels again, which also reads the output of the first. Blocks add
    conv(silu(conv(norm(h)) + C e)), with 3×3 convolutions and a norm without weights; e are sines
    and cosines of the noise level. The second convolution of a block and the last one start at 0.

    Arguments:
        count: E.
        size: The dimension d, the square of an even side.
        deviation: σ_d, the standard deviation of the data.
        width: The number of channels on pixels.
        generator: Source of the weights.

    Raises:
        ValueError: if d is not the square of an even number.
    """

    def __init__(
        self,
        count: int,
        size: int,
        *,
        deviation: float = 1.0,
        width: int = 16,
        generator: torch.Generator,
    ) -> None:
        super().__init__(count, deviation)
        self.side = math.isqrt(size)
        if self.side**2 != size or self.side % 2:
            raise ValueError(f"size: found {size}, expected the square of an even number")

        def convolution(fan_in: int, fan_out: int, side: int = 3) -> nn.Parameter:
            return start((count * fan_out, fan_in, side, side), fan_in * side**2, generator)

        channels = (width, 2 * width, 2 * width, width)
        self.first, self.last = convolution(1, width), _zeros(count, width, 3, 3)
        self.wider, self.narrower = (
            convolution(width, 2 * width, 1),
            convolution(2 * width, width, 1),
        )
        self.joined = convolution(2 * width, width, 1)
        self.conditioning = nn.ParameterList(
            start((count, 2 * WAVES, each), 2 * WAVES, generator) for each in channels
        )
        self.up = nn.ParameterList(convolution(each, each) for each in channels)
        self.down = nn.ParameterList(_zeros(count * each, each, 3, 3) for each in channels)

    def network(self, x: Tensor, wave: Tensor) -> Tensor:
        """Returns F."""
        images = x.unflatten(-1, (self.side, self.side)).movedim(0, 1)
        fine = self._block(0, self._convolved(images, self.first), wave)
        coarse = self._convolved(nn.functional.avg_pool2d(fine, 2), self.wider)
        coarse = self._block(2, self._block(1, coarse, wave), wave)
        wide = nn.functional.interpolate(self._convolved(coarse, self.narrower), scale_factor=2)
        h = self._convolved(self._joined(fine, wide), self.joined)
        h = self._convolved(nn.functional.silu(self._block(3, h, wave)), self.last)
        return h.movedim(1, 0).flatten(-2)

    def _block(self, index: int, h: Tensor, wave: Tensor) -> Tensor:
        conditioning = (wave @ self.conditioning[index]).movedim(0, 1).flatten(1)[..., None, None]
        normed = nn.functional.group_norm(h, self.count)
        inner = self._convolved(normed, self.up[index]) + conditioning
        return h + self._convolved(nn.functional.silu(inner), self.down[index])

    def _convolved(self, h: Tensor, weight: Tensor) -> Tensor:
        return nn.functional.conv2d(h, weight, padding="same", groups=self.count)

    def _joined(self, first: Tensor, second: Tensor) -> Tensor:
        """Returns the channels of both, network by network."""
        pair = [h.unflatten(1, (self.count, -1)) for h in (first, second)]
        return torch.cat(pair, 2).flatten(1, 2)


def _waves(level: Tensor) -> Tensor:
    """Returns sines and cosines of a level with shape (..., 1), periods from 8 down to 1/4."""
    level = level.reshape(1, 1, 1) if level.ndim == 0 else level
    rates = 2 * math.pi * torch.logspace(-3, 2, WAVES, base=2).to(level)
    return torch.cat([(level * rates).sin(), (level * rates).cos()], -1)


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))
