r"""Flows on the line that contain the truth, trained on m samples by the library's objectives.

A mixture on the line is the flow with the bijection :math:`\Phi^{-1} \circ F` to N(0, 1), where F
is the distribution function. Its density is exact and its normalizer 1. Five numbers are learned:
the logit of the weight, two means and two log standard deviations. Fitted to m samples of such a
mixture by maximum likelihood, :math:`m\, E\, KL \to 5/2`, half the number of parameters.
By another objective with covariance Γ/m, it tends to
:math:`\tfrac12 \operatorname{tr}(I\, \Gamma)` with the information I.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ebflow.bases import GaussianMixture
from ebflow.density import LogDensity
from ebflow.objectives import Objective

GRID = 2001
"""Points of the trapezium rule."""

RATE = 0.05
"""The initial learning rate."""


class Pairs(nn.Module, LogDensity):
    """Creates E mixtures of two Gaussians, a ``LogDensity`` of the rows of E equal batches.

    Arguments:
        means: The initial means of all mixtures; standard deviations start at 1, weights at ½.
        count: E.
    """

    def __init__(self, means: tuple[float, float], count: int) -> None:
        super().__init__()
        like = torch.ones(count, dtype=torch.float64)
        self.logit = nn.Parameter(0 * like)
        self.means = nn.Parameter(torch.stack([mean * like for mean in means]))
        self.log_scales = nn.Parameter(torch.zeros_like(self.means))

    def energy(self, x: Tensor) -> Tensor:
        """Returns −log p(x) in nats with shape (B,)."""
        return -self.log_prob(x)

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns log p(x) in nats with shape (B,), for ``x`` with shape (B, 1), B = E b."""
        rows = x.view(len(self.logit), -1)
        z = (rows - self.means[..., None]) * torch.exp(-self.log_scales)[..., None]
        sides = torch.stack([self.logit, -self.logit])
        weights = nn.functional.logsigmoid(sides) - self.log_scales
        joint = weights[..., None] - 0.5 * z * z - 0.5 * math.log(2 * math.pi)
        return joint.logsumexp(0).flatten()

    def log_normalizer(self) -> Tensor:
        """Returns 0."""
        return self.logit.new_zeros(())


def fit(
    pairs: Pairs,
    batches: Callable[[], Tensor],
    objective: Objective,
    *,
    generator: torch.Generator,
    steps: int,
) -> None:
    """Trains each of E mixtures on its own samples by Adam with a cosine schedule.

    Arguments:
        pairs: The mixtures.
        batches: A function that returns the samples of a step, with shape (E, b, 1).
        objective: The objective to minimize.
        generator: Source of the objective's noise.
        steps: The number of steps.
    """
    optimizer = torch.optim.Adam(pairs.parameters(), lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    parameters = list(pairs.parameters())
    for _ in range(steps):
        batch = batches()
        optimizer.zero_grad()
        losses = objective(pairs, batch.flatten(0, 1), generator=generator)
        losses.view(batch.shape[:2]).mean(1).sum().backward(inputs=parameters)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def line_divergence(
    truth: GaussianMixture, density: GaussianMixture | Pairs, count: int = 1
) -> Tensor:
    """Returns KL(truth ‖ density) in nats on the line, by the trapezium rule, with shape (count,).

    Arguments:
        truth: The exact density.
        density: The model, or ``count`` models, each for its own part of a batch.
        count: The number of models.
    """
    reach = float(truth.means.abs().max() + 12 * truth.covariances.max().sqrt())
    x = torch.linspace(-reach, reach, GRID, dtype=torch.float64)[:, None]
    log_p = truth.log_prob(x)
    p = log_p.exp() * (2 * reach / (GRID - 1))
    return (log_p - density.log_prob(x.repeat(count, 1)).view(count, -1)) @ p
