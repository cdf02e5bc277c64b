r"""A reference of normalized class-conditional densities: exact scores and posteriors.

Of densities :math:`p_j(x) = p(x \mid j)` with priors :math:`\pi_j`,

.. math:: S_j = \nabla \log p_j, \qquad r_j = \frac{\pi_j p_j}{\sum_k \pi_k p_k}, \qquad
    S = \nabla \log \sum_k \pi_k p_k = \sum_j r_j S_j.

Similarity to a class-blind density does not judge a classifier: the density's logarithm, added
to every logit, changes no prediction and every logit-gradient. ``pooled`` is the simplest
class-blind density.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..bases import GaussianMixture
from ..flow import Flow

ROWS = 1000  # Points at a time

Normalized = Flow | GaussianMixture  # Exact log-probabilities and scores


def pooled(x: Tensor, noise: float) -> GaussianMixture:
    """Returns the Gaussian of rows with shape (N, D) of all classes, with noise s > 0.

    It has their mean and their covariance + s² I.
    """
    covariance = torch.cov(x.double().mT) + noise**2 * torch.eye(x.shape[1], dtype=torch.float64)
    return GaussianMixture(torch.ones(1), x.mean(0, keepdim=True), covariance.to(x)[None])


@dataclass(frozen=True)
class Scores:
    """A reference at points x."""

    marginal: Tensor  # S with shape (B, D)
    classes: Tensor  # S_j of all classes with shape (C, B, D)
    posterior: Tensor  # r with shape (B, C)
    log_probs: Tensor  # log p_j with shape (B, C)


class Reference:
    """Creates a reference of one density per class, in the order of the classes.

    The ``priors`` π with shape (C,) are scaled to sum to 1; None: all equal.
    """

    def __init__(self, densities: Sequence[Normalized], priors: Tensor | None = None) -> None:
        count = len(densities)
        priors = torch.ones(count) if priors is None else priors
        if priors.shape != (count,) or not bool((priors > 0).all()):
            raise ValueError(f"priors: found {priors}, expected {count} positive numbers")
        self.densities, self.priors = tuple(densities), priors / priors.sum()

    @torch.no_grad()
    def at(self, x: Tensor) -> Scores:
        """Returns scores, posteriors and log-densities at ``x`` with shape (B, D)."""
        parts = [[(d.log_prob(rows), d.score(rows)) for d in self.densities]
                 for rows in x.split(ROWS)]  # fmt: skip
        log_probs = torch.cat([torch.stack([log_p for log_p, _ in p], 1) for p in parts])
        classes = torch.cat([torch.stack([score for _, score in p]) for p in parts], 1)
        posterior = (log_probs + self.priors.to(log_probs).log()).softmax(1)
        marginal = torch.einsum("bj,jbd->bd", posterior, classes)
        return Scores(marginal, classes, posterior, log_probs)
