r"""Robustness off the manifold of the data, compared with that on it.

A linear manifold, the leading principal directions of the data, splits noise into a part on it and
a part off it. Both are scaled to one length r. With the centred logits
:math:`c = f - \text{mean}_j f_j`, which no shift of all logits changes, the ratio

.. math:: \frac{E \|c(x + u_\text{on}) - c(x)\|}{E \|c(x + u_\text{off}) - c(x)\|}

is 1 for a classifier that does not know the manifold. It is larger, the less the classifier reacts
to noise off the manifold.

Source: Which Models have Perceptually-Aligned Gradients? An Explanation via Off-Manifold
Robustness (Srinivas, Bordt, Lakkaraju, 2023), arXiv:2305.19101, where the manifold is that of a
generative model.
"""

import torch
from torch import Tensor

from ..randomness import normal
from .logit import Classifier, less_mean

VARIANCE = 0.95  # Share of the data's variance on the manifold


def principal(rows: Tensor, share: float = VARIANCE) -> Tensor:
    """Returns the fewest principal directions with a share of the variance, with shape (D, k).

    They are orthonormal. One singular value decomposition of the rows (N, D), less their mean.
    """
    centred = (rows - rows.mean(0)).double()
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    parts = singular.square().cumsum(0) / singular.square().sum()
    count = int((parts < share).sum()) + 1
    return directions[:count].mT.to(rows)


@torch.no_grad()
def off_manifold(
    network: Classifier, x: Tensor, directions: Tensor, size: float, generator: torch.Generator
) -> float:
    """Returns the ratio of changes on and off a manifold; three passes.

    Arguments:
        network: A function from points (B, D) to logits (B, C).
        x: The points with shape (B, D).
        directions: Orthonormal directions of the manifold with shape (D, k), k < D.
        size: The length r of the noise, in the units of x.

    Raises:
        ValueError: If there is no direction off the manifold.
    """
    width, count = directions.shape
    if count >= width:
        raise ValueError(f"directions: found {count} of {width}, expected fewer")
    logits = less_mean(network)
    noise = normal(x.shape, x, generator)
    on = noise @ directions @ directions.mT
    plain = logits(x)
    changes = [
        (logits(x + size * part / part.norm(dim=1, keepdim=True)) - plain).norm(dim=1).mean()
        for part in (on, noise - on)
    ]
    return float(changes[0] / changes[1])
