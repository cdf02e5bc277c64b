r"""A finite class of scores, and empirical risk minimization over it.

.. math:: \hat h = \arg\min_{h \in H} \frac1m \sum_{i \le m} \|h(x_i) - y_i\|^2,
    \qquad x_i = x_{0,i} + \sigma z_i, \quad y_i = -z_i / \sigma,

with one noise vector per sample. Samples are nested: the cumulative losses of the largest sample
serve every m. If no sample distinguishes two scores, their losses are equal to the last digit, and
the tie is broken at random.
"""

__all__ = ["PLACES", "cumulative_losses", "erm", "far_class"]

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from ..bases import GaussianMixture
from ..randomness import uniform
from .instances import Score

PLACES = (0.0, 2.0, -2.0, 1.0, -1.0)
"""Places of the far mode in the hypotheses of ``far_class``, in units of R; 0: no far mode.

All but the true one, 1, cost √η R σ/V, which is 2 ε at the worst η, and samples of the bulk do not
distinguish them. A mode half-way to R would cost ε itself, so the test could not decide.
"""

BULKS = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)  # Places of their bulk


@torch.no_grad()
def cumulative_losses(
    hypotheses: Sequence[Score], x: Tensor, y: Tensor, sizes: Sequence[int]
) -> Tensor:
    """Returns the sums of losses over the first m samples, with shape (sizes, H).

    Noisy samples ``x`` and their labels ``y`` have shape (N, D).
    """
    last = torch.as_tensor(sizes) - 1
    sums = ((hypothesis(x) - y).square().sum(-1).cumsum(0)[last] for hypothesis in hypotheses)
    return torch.stack([*sums], -1)


def erm(losses: Tensor, *, generator: torch.Generator) -> Tensor:
    """Returns the index of the least loss along the last dimension; ties are broken at random."""
    tickets = 1 + uniform(losses.shape, losses, generator)
    return ((losses == losses.amin(-1, keepdim=True)) * tickets).argmax(-1)


def far_class(smooth: GaussianMixture) -> list[GaussianMixture]:
    """Returns 45 mixtures on the line, one of which is the smoothed truth: ``BULKS`` × ``PLACES``.

    The far mode has its true weight, or is left out.
    """
    found = []
    for bulk, place in product(BULKS, PLACES):
        means = torch.cat([smooth.means.new_tensor([[bulk]]), place * smooth.means[1:]])
        n = 2 if place else 1
        found.append(GaussianMixture(smooth.weights[:n], means[:n], smooth.covariances[:n]))
    return found
