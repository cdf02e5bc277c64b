r"""Random changes of training rows: flips and small shifts of images, and noise.

An augmentation is a function of raw rows and a generator. Row i of a batch of images is mirrored
with probability 1/2 and shifted by :math:`(\delta_x, \delta_y)` pixels, edges repeated:
:math:`\delta = \mathrm{round}(t)` with t uniform on [−reach, reach]. Values are rounded to the
nearest level, so that integers stay integers. *Noise* of standard deviation σ, fresh at every
step, makes of the data's density p the smoothed one, :math:`p * N(0, \sigma^2 I)`.

Official EBFlow trains CIFAR-10 on images mirrored, padded by 2, moved by up to 4 % of the 36
pixels, cropped to 32 and mirrored again: a reach of 1.44 pixels. A second mirroring changes no
distribution, since shifts are symmetric.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, and its repository.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from ebflow.randomness import Generator, normal, uniform

Augmentation = Callable[[Tensor, Generator], Tensor]
"""From raw rows with shape (B, D) and a generator to rows of the same shape and dtype."""


class FlipAndShift:
    """Creates an augmentation of images.

    Arguments:
        shape: The shape of an image, (C, H, W) or (H, W).
        reach: The largest shift in pixels, before rounding to a whole number of them.
    """

    def __init__(self, shape: Sequence[int], *, reach: float = 0.0) -> None:
        self.shape = (1, *shape)[-3:]
        self.reach = reach

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """Returns ``x`` with shape (B, D), every row changed on its own."""
        images = x.reshape(-1, *self.shape)
        images = images if images.is_floating_point() else images.float()
        where = affine_grid(self._maps(images, generator), images.shape, align_corners=False)
        moved = grid_sample(images, where, padding_mode="border", align_corners=False)
        return (moved if x.is_floating_point() else moved.round()).to(x.dtype).view_as(x)

    def _maps(self, images: Tensor, generator: Generator) -> Tensor:
        """Returns affine maps from new to old coordinates in [−1, 1], with shape (B, 2, 3)."""
        u = uniform((len(images), 3), images, generator)
        pixels = torch.round((2 * u[:, 1:] - 1) * self.reach)
        maps = images.new_zeros(len(images), 2, 3)
        maps[:, 0, 0] = torch.where(u[:, 0] < 0.5, -1, 1)
        maps[:, 1, 1] = 1
        maps[:, :, 2] = -2 * pixels / images.new_tensor(self.shape[:0:-1])
        return maps


def noised(sigma: float) -> Augmentation:
    """Returns what adds N(0, σ²) to real-valued rows, σ in the units of the raw data."""
    return lambda x, generator: torch.add(x, normal(x.shape, x, generator), alpha=sigma)


AUGMENTATIONS: dict[str, Callable[[Sequence[int]], Augmentation]] = {
    "flip": FlipAndShift,
    "cifar10": partial(FlipAndShift, reach=0.04 * 36),
}
"""Augmentations by name, as functions of the shape of an image."""


def augmentation(name: str, sigma: float, shape: Sequence[int]) -> Augmentation | None:
    """Returns the changes of training rows: images are moved, then noised; None: no change.

    Arguments:
        name: A name in ``AUGMENTATIONS``, or ``none``.
        sigma: The standard deviation of the noise; 0: no noise.
        shape: The shape of an example.
    """
    moves = [] if name == "none" else [AUGMENTATIONS[name](shape)]
    parts = [*moves, *([noised(sigma)] if sigma else [])]
    if not parts:
        return None
    return lambda x, generator: reduce(lambda y, part: part(y, generator), parts, x)
