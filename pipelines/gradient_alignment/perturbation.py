r"""Pixel perturbation, and density ratios.

*Perturbation* replaces the least salient fraction q of every image's pixels, and measures the
accuracy of a judge on the result; higher is better. The judge is the classifier itself, or a
baseline, which separates saliency from robustness. It measures accuracies, not logits: a change of
a logit is a density ratio, which a shift of all logits changes arbitrarily.

*Density ratio*: :math:`p(x + \eta \mid y) / p(x \mid y) = e^{f_y(x + \eta) - f_y(x)}`. Outliers
dominate its mean, which may overflow. So the results are the logarithm of the mean, and the mean
of the logarithm.

Source: Srinivas, Fleuret (2021), arXiv:2006.09128; its fill is the mean of the image.
"""

__all__ = ["accuracies", "density_ratio", "magnitude", "saliency"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ebflow.alignment.logit import Classifier, ClassLogit, accuracy
from ebflow.estimates import Estimate
from ebflow.randomness import normal


def saliency(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns the norms over colours, (B, P) for P pixels, of rows with shape (B, D).

    Arguments:
        rows: Gradients, or other values of elements.
        shape: (C, H, W), or any other shape of examples, whose elements are pixels.
    """
    return rows.view(len(rows), shape[0] if len(shape) == 3 else 1, -1).norm(dim=1)


def magnitude(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns every pixel's distance from the image's mean, with shape (B, P): a control."""
    return saliency(x - x.mean(1, keepdim=True), shape)


def accuracies(
    judge: Classifier, x: Tensor, labels: Tensor, salience: Tensor, fractions: Sequence[float]
) -> list[float]:
    """Returns the judge's accuracies with the least salient q P pixels replaced.

    Exactly round(q P) pixels are replaced; among equal ones the first.

    Arguments:
        judge: The classifier.
        x: Images with shape (B, D).
        labels: Their labels.
        salience: With shape (B, P).
        fractions: The fractions q in [0, 1].
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
    """Returns log E[ratio] and E[log ratio] in nats, for noise of standard deviation σ.

    Raises:
        NonFinite: if a logit is not finite.
    """
    density = ClassLogit(network, labels)
    noisy = torch.add(x, normal(x.shape, x, generator), alpha=sigma)
    log = (density.energy(x) - density.energy(noisy)).double()
    mean = Estimate.of(log, name="log density ratio")
    return float(log.logsumexp(0)) - math.log(len(log)), mean
