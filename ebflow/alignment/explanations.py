r"""Measurements of a classifier's gradients as explanations, and of its logits as densities.

*Pixel perturbation* replaces the least salient pixels of images by the image's mean. The accuracy
of a judge on the result is better the higher it is. *Activity maximization* climbs a logit by

.. math:: x \leftarrow \operatorname{clip}(x + \eta (\nabla f_y(x) - \lambda (x - \tfrac12)), 0, 1)

*Off-manifold robustness* compares noise along the leading principal directions of the data with
noise of the same length across them.

Sources: Srinivas, Fleuret (2021), arXiv:2006.09128 (perturbation, ratios, pictures); Srinivas,
Bordt, Lakkaraju (2023), arXiv:2305.19101 (robustness).
"""

__all__ = ["density_ratio", "maximize", "off_manifold", "perturbed_accuracies", "principal",
           "saliency"]  # fmt: skip

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..estimates import Estimate
from ..randomness import normal
from .logit import Classifier, ClassLogit, accuracy, less_mean

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


@torch.no_grad()
def density_ratio(
    network: Classifier, x: Tensor, labels: Tensor, sigma: float, generator: torch.Generator
) -> tuple[float, Estimate]:
    """Returns log E[p(x + η | y) / p(x | y)], and E of the logarithm, for noise η.

    Outliers dominate the mean ratio, which may overflow; so this is its logarithm.

    Raises:
        NonFinite: If a logit is not finite.
    """
    density = ClassLogit(network, labels)
    noisy = torch.add(x, normal(x.shape, x, generator), alpha=sigma)
    log = (density.energy(x) - density.energy(noisy)).double()
    mean = Estimate.of(log, name="log density ratio")
    return float(log.logsumexp(0)) - math.log(len(log)), mean


def maximize(
    network: Classifier,
    labels: Tensor,
    *,
    width: int,
    generator: torch.Generator,
    steps: int = 500,
    rate: float = 0.1,
    decay: float = 0.01,
) -> Tensor:
    """Returns pictures (B, D) with large logits of ``labels``, from noise about ½.

    Steps, rate η and decay λ are those of the paper's code.
    """
    density = ClassLogit(network, labels)
    like = torch.empty(0, device=labels.device)
    x = (0.5 + 0.2 * normal((len(labels), width), like, generator)).clamp(0, 1)
    for _ in range(steps):
        gradient = density.score(x).detach()
        x = (x + rate * (gradient - decay * (x - 0.5))).clamp(0, 1)
    return x


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
