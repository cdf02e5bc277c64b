r"""Robustness to noise off the manifold of the data, compared with noise on it.

A linear manifold, the leading principal directions of the data, splits noise into a part on it and
a part off it, each scaled to the same length r. With the centred logits
:math:`c = f - \text{mean}_j f_j`, which no shift changes, the ratio

.. math:: \frac{E \|c(x + u_\text{on}) - c(x)\|}{E \|c(x + u_\text{off}) - c(x)\|}

is 1 for a classifier that does not depend on the manifold, and larger for one that is less
sensitive to noise off it.

Source: Which Models have Perceptually-Aligned Gradients? An Explanation via Off-Manifold
Robustness (Srinivas, Bordt, Lakkaraju, 2023), arXiv:2305.19101, where the manifold is a generative
model's.
"""

__all__ = ["off_manifold", "principal"]

import torch
from torch import Tensor

from ebflow.alignment.logit import Classifier, less_mean
from ebflow.randomness import normal

VARIANCE = 0.95
"""Share of the data's variance on the manifold."""


def principal(covariance: Tensor, share: float = VARIANCE) -> Tensor:
    """Returns the fewest principal directions with a share of the variance, with shape (D, k)."""
    variances, directions = torch.linalg.eigh(covariance.double())
    part = variances.flip(0).cumsum(0) / variances.sum()
    count = int((part < share).sum()) + 1
    return directions.flip(1)[:, :count].to(covariance)


@torch.no_grad()
def off_manifold(
    network: Classifier, x: Tensor, directions: Tensor, size: float, generator: torch.Generator
) -> float:
    """Returns the ratio; three passes.

    Arguments:
        network: The classifier.
        x: Points with shape (B, D).
        directions: Orthonormal directions of the manifold, with shape (D, k), k < D.
        size: r.
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
