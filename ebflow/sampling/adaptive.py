"""The chain on images by which the flow's paper fills masks."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..density import LogDensity
from ..randomness import normal, uniform
from .langevin import finite, moved

WIDTHS = 0.1, 2.0  # Least and largest standard deviation of a blur, in pixels


@torch.no_grad()
def adaptive_langevin(
    density: LogDensity,
    x: Tensor,
    *,
    generator: torch.Generator,
    free: Tensor | None = None,
    image: Sequence[int] | None = None,
    steps: int = 500,
    h: float = 0.5,
    snr: float = 0.1,
    smoothing: float = 0.05,
) -> Tensor:
    """Runs drift, smoothing and noise of adapted size on images, as the flow's paper does.

    With r = (mean ‖n‖ / mean ‖s‖)², n ~ N(0, I), norms of images and means over the batch, a step
    is x ← x + ½h² s + c (blur(x) − x) + snr · r · h · n. The last step has no noise. Each step
    draws the width of the blur, U(0.1, 2) pixels. The chain does not sample the density: it ends
    at a picture near a mode.

    Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
    Kira, Lee, 2023), arXiv:2305.15267; the adapted noise: Score-Based Generative Modeling through
    Stochastic Differential Equations (Song et al., 2021), arXiv:2011.13456.

    Arguments:
        density: The density, up to a constant.
        x: The starts of the chains, with shape (B, *event).
        generator: The source of n and of the blurs' widths.
        free: True where an element moves, broadcastable to ``x``; None: all move.
        image: (C, H, W) if events are flat images; None: the shape of events.
        steps: The number of steps.
        h: h, in the units of ``x``.
        snr: The factor of the noise.
        smoothing: c; the paper has 0.05 for STL-10 and 0.01 for CelebA.

    Raises:
        NonFinite: if a chain diverges.
    """
    shape = (len(x), *(image or x.shape[1:]))
    for index in range(steps):
        score = density.score(x)
        noise = normal(x.shape, x, generator)
        width = WIDTHS[0] + (WIDTHS[1] - WIDTHS[0]) * uniform((1,), x, generator)
        smoothed = blur(x.view(shape), width).view(x.shape)
        target = x + h**2 / 2 * score + smoothing * (smoothed - x)
        if index < steps - 1:
            target = target + snr * h * _ratio(noise, score) * noise
        x = finite(moved(x, target, free), "adaptive_langevin: lower h or snr")
    return x


def _ratio(noise: Tensor, score: Tensor) -> Tensor:
    """Returns r = (mean ‖n‖ / mean ‖s‖)²."""
    first, second = (t.flatten(1).norm(dim=1).mean() for t in (noise, score))
    return (first / second).square()


def blur(images: Tensor, sigma: Tensor | float) -> Tensor:
    """Returns images convolved with a 5×5 Gaussian, mirrored at their edges.

    Arguments:
        images: With shape (B, C, H, W), H and W at least 3.
        sigma: The standard deviation in pixels.
    """
    offsets = torch.arange(-2, 3, dtype=images.dtype, device=images.device)
    row = torch.softmax(-0.5 * (offsets / sigma) ** 2, 0)
    kernel = torch.outer(row, row).expand(images.shape[1], 1, 5, 5)
    mirrored = F.pad(images, (2, 2, 2, 2), "reflect")
    return F.conv2d(mirrored, kernel, groups=images.shape[1])
