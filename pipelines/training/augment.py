r"""Random changes of training rows: flips and small shifts of images, and noise.

Row i of a batch of images is mirrored with probability 1/2 and shifted by
:math:`(\delta_x, \delta_y)` pixels, edges repeated: :math:`\delta = \mathrm{round}(t)` with t
uniform on [−reach, reach]. Noise of standard deviation σ, fresh at every step, makes of the data's
density p the smoothed one, :math:`p * N(0, \sigma^2 I)`.

Official EBFlow mirrors images of CIFAR-10, pads them by 2 and moves them by up to 4 % of the 36
pixels. Then it crops them to 32 and mirrors them again. This is a reach of 1.44 pixels. A second
mirroring changes no distribution, since shifts are symmetric.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267, and its repository.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from ebflow.randomness import Generator, normal, uniform

# From raw rows with shape (B, D) and a generator to rows of the same shape and dtype.
Augmentation = Callable[[Tensor, Generator], Tensor]

# The largest shift in pixels, by the name of the augmentation.
REACH = {"flip": 0.0, "cifar10": 0.04 * 36}


def augmentation(name: str, sigma: float, shape: Sequence[int]) -> Augmentation | None:
    """Returns the changes of training rows: images are moved, then noised; None: no change.

    The name is one of ``REACH``, or ``none``. σ is in the units of the raw data; 0: no noise.
    """
    moved = None if name == "none" else flip_and_shift(shape, REACH[name])
    if not sigma:
        return moved

    def noised(x: Tensor, generator: Generator) -> Tensor:
        x = x if moved is None else moved(x, generator)
        return torch.add(x, normal(x.shape, x, generator), alpha=sigma)

    return noised


def flip_and_shift(shape: Sequence[int], reach: float = 0.0) -> Augmentation:
    """Returns an augmentation that changes every row on its own, and leaves integers integers.

    Arguments:
        shape: The shape of an image, (C, H, W) or (H, W).
        reach: The largest shift in pixels, before rounding to a whole number of them.
    """
    shape = (1, *shape)[-3:]

    def moved(x: Tensor, generator: Generator) -> Tensor:
        images = x.reshape(-1, *shape)
        images = images if images.is_floating_point() else images.float()
        grid = affine_grid(_maps(images, reach, generator), images.shape, align_corners=False)
        result = grid_sample(images, grid, padding_mode="border", align_corners=False)
        return (result if x.is_floating_point() else result.round()).to(x.dtype).view_as(x)

    return moved


def _maps(images: Tensor, reach: float, generator: Generator) -> Tensor:
    """Returns affine maps from new to old coordinates in [−1, 1], with shape (B, 2, 3)."""
    u = uniform((len(images), 3), images, generator)
    pixels = torch.round((2 * u[:, 1:] - 1) * reach)
    maps = images.new_zeros(len(images), 2, 3)
    maps[:, 0, 0] = torch.where(u[:, 0] < 0.5, -1, 1)
    maps[:, 1, 1] = 1
    maps[:, :, 2] = -2 * pixels / images.new_tensor(images.shape[:1:-1])
    return maps
