"""Random crops and flips of images, as in the paper's code for CIFAR.

Source: Rethinking the Role of Gradient-Based Attribution Methods for Model Interpretability
(Srinivas, Fleuret, 2021), arXiv:2006.09128, and its code (idiap/rethinking-saliency).
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ebflow.errors import BadInput

PADDING = 4  # Black pixels on each side, from which an image is cropped

Augmentation = Callable[[Tensor, torch.Generator], Tensor]  # Of rows (B, D), to the same shape


def augmentation(name: str, shape: Sequence[int]) -> Augmentation | None:
    """Returns the augmentation of examples with a shape; None for ``none``.

    Raises:
        BadInput: If examples are no images.
    """
    if name == "none":
        return None
    if len(shape) not in (2, 3):
        expected = "images, or --classifier.augment none"
        raise BadInput(
            option="--classifier.augment", found=f"rows of shape {tuple(shape)}", expected=expected
        )
    image = (1, *shape)[-3:]
    return partial(_augmented, shape=image, flip=name == "crop-flip")


def _augmented(
    x: Tensor, generator: torch.Generator, *, shape: Sequence[int], flip: bool
) -> Tensor:
    """Returns a random crop of every padded image, half of them mirrored if ``flip``."""
    count, (_, height, width) = len(x), shape
    padded = F.pad(x.view(count, *shape), [PADDING] * 4)
    top, left = torch.randint(2 * PADDING + 1, (2, count, 1), generator=generator)
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    images = torch.arange(count).view(-1, 1, 1)
    cropped = padded.movedim(1, -1)[images, rows.unsqueeze(2), columns.unsqueeze(1)]
    return cropped.movedim(-1, 1).reshape(count, -1)
