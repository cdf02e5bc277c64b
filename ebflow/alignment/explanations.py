"""Measurements of a classifier's gradients as explanations.

*Pixel perturbation* replaces the least salient pixels of images by the image's mean. The accuracy
of a judge on the result is better the higher it is.

*Off-manifold robustness* compares noise along the leading principal directions of the data with
noise of the same length across them.

Sources: Srinivas, Fleuret (2021), arXiv:2006.09128 (perturbation); Srinivas,
Bordt, Lakkaraju (2023), arXiv:2305.19101 (robustness).
"""

__all__ = ["off_manifold", "perturbed_accuracies", "principal", "saliency"]

from collections.abc import Sequence

import torch
from torch import Tensor

from ..randomness import normal
from .logit import Classifier, accuracy, less_mean

VARIANCE = 0.95
"""Share of the data's variance on the manifold."""


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


def principal(covariance: Tensor, share: float = VARIANCE) -> Tensor:
    """Returns the fewest principal directions with a share of the variance, as columns."""
    variances, directions = torch.linalg.eigh(covariance.double())
    part = variances.flip(0).cumsum(0) / variances.sum()
    count = int((part < share).sum()) + 1
    return directions.flip(1)[:, :count].to(covariance)


@torch.no_grad()
def off_manifold(
    network: Classifier, x: Tensor, directions: Tensor, size: float, generator: torch.Generator
) -> float:
    """Returns the mean change of the centred logits by noise on the manifold, over that off it.

    Arguments:
        network: The classifier.
        x: Points with shape (B, D).
        directions: Orthonormal directions of the manifold, with shape (D, k), k < D.
        size: The length of the noise.
        generator: The source of the noise.
    """
    logits = less_mean(network)
    noise = normal(x.shape, x, generator)
    on = noise @ directions @ directions.mT
    changes = [
        (logits(x + size * part / part.norm(dim=1, keepdim=True)) - logits(x)).norm(dim=1).mean()
        for part in (on, noise - on)
    ]
    return float(changes[0] / changes[1])
