"""Measurements of a classifier's gradients as explanations.

*Pixel perturbation* replaces the least salient pixels of images by the image's mean. The accuracy
of a judge on the result is better the higher it is.

Source: Srinivas, Fleuret (2021), arXiv:2006.09128.
"""

__all__ = ["perturbed_accuracies", "saliency"]

from collections.abc import Sequence

import torch
from torch import Tensor

from .logit import Classifier, accuracy


def saliency(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns the norms over colours of gradients (B, D), with shape (B, pixels).

    Without three dimensions (colours, height, width) every element is a pixel.
    """
    return rows.view(len(rows), shape[0] if len(shape) == 3 else 1, -1).norm(dim=1)


def perturbed_accuracies(
    judge: Classifier, x: Tensor, labels: Tensor, salience: Tensor, fractions: Sequence[float]
) -> list[float]:
    """Returns the judge's accuracies with fractions of the least salient pixels replaced.

    Exactly round(fraction · pixels) are replaced; of equal ones the first.
    """
    pixels = salience.shape[1]
    ranks = salience.argsort(dim=1, stable=True).argsort(1)
    ranks, mean = ranks.repeat(1, x.shape[1] // pixels), x.mean(1, keepdim=True)
    counts = [round(fraction * pixels) for fraction in fractions]
    return [accuracy(judge, torch.where(ranks < n, mean, x), labels) for n in counts]
