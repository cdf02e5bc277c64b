r"""Measurements of a classifier's gradients as explanations, and of its logits as densities.

*Activity maximization* climbs a logit by

.. math:: x \leftarrow \operatorname{clip}(x + \eta (\nabla f_y(x) - \lambda (x - \tfrac12)), 0, 1)

Source: Srinivas, Fleuret (2021), arXiv:2006.09128.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ebflow.alignment.attribution import mean_filled
from ebflow.alignment.logit import Classifier, ClassLogit, accuracy
from ebflow.evaluation import Estimate
from ebflow.randomness import normal


def perturbed_accuracies(
    judge: Classifier, x: Tensor, labels: Tensor, salience: Tensor, fractions: Sequence[float]
) -> list[float]:
    """Returns the judge's accuracies with fractions of the least salient pixels replaced.

    Exactly round(fraction · pixels) become the image's mean; of equal ones the first.
    """
    pixels = salience.shape[1]
    ranks = salience.argsort(dim=1, stable=True).argsort(1)
    counts = [round(fraction * pixels) for fraction in fractions]
    return [accuracy(judge, mean_filled(x, ranks < count), labels) for count in counts]


@torch.no_grad()
def density_ratio(
    network: Classifier, x: Tensor, labels: Tensor, sigma: float, generator: torch.Generator
) -> tuple[float, Estimate]:
    """Returns log E[p(x + η | y) / p(x | y)], and E of the logarithm, for noise η.

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
