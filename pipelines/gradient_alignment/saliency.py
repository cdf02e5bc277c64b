r"""Measurements of a classifier's gradients as explanations, and of its logits as densities.

*Pixel perturbation* replaces the least salient pixels of images by the image's mean. The accuracy
of a judge on the result is better the higher it is. *Activity maximization* climbs a logit by

.. math:: x \leftarrow \operatorname{clip}(x + \eta (\nabla f_y(x) - \lambda (x - \tfrac12)), 0, 1)

*Off-manifold robustness* compares noise along the leading principal directions of the data with
noise of the same length across them.

Sources: Srinivas, Fleuret (2021), arXiv:2006.09128 (perturbation, ratios, pictures); Srinivas,
Bordt, Lakkaraju (2023), arXiv:2305.19101 (robustness); Yeh et al. (2019), arXiv:1901.09392
(infidelity, sensitivity); Adebayo et al. (2018), arXiv:1810.03292 (random parameters).
"""

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from captum import metrics as captum
from scipy.stats import spearmanr
from torch import Tensor, nn

from ebflow.alignment.logit import Classifier, ClassLogit, accuracy, less_mean
from ebflow.estimates import Estimate
from ebflow.randomness import normal, uniform

VARIANCE = 0.95
"""Share of the data's variance on the manifold."""

SAMPLES = 10
"""Perturbations of a point, as captum's default."""


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


def logit_gradient(network: Classifier, x: Tensor, labels: Tensor) -> Tensor:
    """Returns ∇f_y with shape (B, D)."""
    return ClassLogit(network, labels).score(x).detach()


def infidelity(
    network: Classifier,
    x: Tensor,
    labels: Tensor,
    attribution: Tensor,
    sigma: float,
    generator: torch.Generator,
) -> Tensor:
    """Returns the mean squared error of u · attribution as the change of f_y by noise u."""

    def perturbed(inputs: Tensor) -> tuple[Tensor, Tensor]:
        u = sigma * normal(inputs.shape, inputs, generator)
        return u, inputs - u

    errors = captum.infidelity(
        network, perturbed, x, attribution, target=labels, n_perturb_samples=SAMPLES
    )
    return errors.mean()


def sensitivity(
    network: Classifier, x: Tensor, labels: Tensor, generator: torch.Generator
) -> float:
    """Returns the largest relative change of ∇f_y near a point, in the mean over points."""

    def perturbed(inputs: Tensor, radius: float) -> Tensor:
        return inputs + radius * (2 * uniform(inputs.shape, inputs, generator) - 1)

    def explained(inputs: Tensor | tuple[Tensor], target: Tensor) -> tuple[Tensor]:
        (rows,) = (inputs,) if isinstance(inputs, Tensor) else inputs
        return (logit_gradient(network, rows, target),)

    changes = captum.sensitivity_max(
        explained, x, perturbed, n_perturb_samples=SAMPLES, target=labels
    )
    return float(changes.mean())


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Returns the mean of Spearman's rank correlation over rows with shape (B, D)."""
    pairs = zip(a.cpu().numpy(), b.cpu().numpy(), strict=True)
    return float(np.mean([spearmanr(*pair).statistic for pair in pairs]))


def with_last_of(network: nn.Module, other: nn.Module) -> nn.Module:
    """Returns a copy of a network with the parameters of its last layer from another."""
    result, state = copy.deepcopy(network), other.state_dict()
    layer = [*state][-1].rpartition(".")[0]
    last = {name: value for name, value in state.items() if name.rpartition(".")[0] == layer}
    result.load_state_dict(result.state_dict() | last)
    return result
