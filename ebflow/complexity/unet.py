r"""A small U-Net that denoises grey images, for ensembles.

Source: U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger, Fischer,
Brox, 2015), arXiv:1505.04597.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from ..networks import started, zeroed
from .denoisers import WAVES


class UNet(nn.Module):
    """Creates a U-Net of two resolutions, for square images of one channel.

    A block on the pixels, two on means of 2×2 with twice as many channels, and one on the pixels
    again, which also has the output of the first. The output is 0 at the start. A step costs about
    0.15 MFLOP a pixel at a width of 16, times 3 with its gradient.

    Arguments:
        size: The dimension d, the square of an even side.
        width: The channels on the pixels.
        generator: Source of the initial weights.

    Raises:
        ValueError: if d is not the square of an even number.
    """

    def __init__(self, size: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.side = math.isqrt(size)
        if self.side**2 != size or self.side % 2:
            raise ValueError(f"size: found {size}, expected the square of an even number")

        def convolution(inputs: int, outputs: int, kernel: int) -> nn.Module:
            layer = skip_init(nn.Conv2d, inputs, outputs, kernel, padding="same")
            return started(layer, generator)

        self.first = convolution(1, width, 3)
        self.fine = _Block(width, generator)
        self.wider = convolution(width, 2 * width, 1)
        self.coarse = nn.ModuleList(_Block(2 * width, generator) for _ in range(2))
        self.joined = convolution(3 * width, width, 1)
        self.end = _Block(width, generator)
        self.last = zeroed(skip_init(nn.Conv2d, width, 1, 3, padding="same"))

    def forward(self, x: Tensor, waves: Tensor) -> Tensor:
        """Returns F for ``x`` with shape (B, d) and the waves of their noise levels."""
        images = x.unflatten(-1, (1, self.side, self.side))
        fine = self.fine(self.first(images), waves)
        coarse = self.wider(F.avg_pool2d(fine, 2))
        for block in self.coarse:
            coarse = block(coarse, waves)
        wide = coarse.repeat_interleave(2, -1).repeat_interleave(2, -2)
        h = self.joined(torch.cat([fine, wide], -3))
        return self.last(F.silu(self.end(h, waves))).flatten(-3)


class _Block(nn.Module):
    """h + conv(silu(conv(norm(h)) + C e)), with a norm without weights; 0 added at the start."""

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        options = {"padding": "same", "bias": False}
        self.up = started(skip_init(nn.Conv2d, channels, channels, 3, **options), generator)
        self.down = zeroed(skip_init(nn.Conv2d, channels, channels, 3, **options))
        self.conditioning = started(skip_init(nn.Linear, 2 * WAVES, channels), generator)

    def forward(self, h: Tensor, waves: Tensor) -> Tensor:
        normed = F.layer_norm(h, h.shape[-3:])
        inner = self.up(normed) + self.conditioning(waves)[..., None, None]
        return h + self.down(F.silu(inner))
