r"""A classifier's logits as log-densities.

With :math:`p(x, y) = e^{f_y(x)} / Z` the true-class logit is a class-conditional log-density up to
a constant, :math:`\log p(x \mid y) = f_y(x) + \text{const}`, and its input-gradient is the score:
every objective of ``objectives.py`` applies to it. The implicit marginal is
:math:`\log p(x) = \operatorname{logsumexp}_j f_j(x) + \text{const}`, with the score
:math:`\sum_j p(j \mid x) \nabla f_j`.

Cross-entropy determines only differences of logits. :math:`f_i + g` with any scalar g(x) has the
same posteriors, losses and loss-gradients, but is another density: :math:`\nabla g` is added to
every logit-gradient, with g = a t·x for a unit pattern t whatever one likes.

Source: Srinivas, Fleuret (2021), arXiv:2006.09128; Your Classifier is Secretly an Energy Based
Model and You Should Treat it Like One (Grathwohl et al., 2020), arXiv:1912.03263 (marginal).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..density import LogDensity

#: A function from points (B, D) to logits (B, C), which does not mix examples
Classifier = Callable[[Tensor], Tensor]

ROWS = 1000  # Points at a time without gradients


class ClassLogit(LogDensity):
    """Creates the ``LogDensity`` log p(x | y) = f_y(x) + const at labelled points.

    The logits of the first points are stored, so that a cross-entropy at these points costs no
    further pass. Each of K copies of the batch has these labels y with shape (B,).
    """

    def __init__(self, network: Classifier, labels: Tensor) -> None:
        self.network, self.labels = network, labels
        self.logits: Tensor | None = None

    def energy(self, x: Tensor) -> Tensor:
        """Returns −f_y(x) with shape (B,)."""
        logits = self.network(x)
        if self.logits is None:
            self.logits = logits
        labels = self.labels.repeat(len(x) // len(self.labels))
        return -logits.gather(1, labels.unsqueeze(1)).squeeze(1)


def less_mean(network: Classifier) -> Classifier:
    """Returns the same classifier with the logits f_i − mean_j f_j, which no shift changes."""

    def centred(x: Tensor) -> Tensor:
        logits = network(x)
        return logits - logits.mean(1, keepdim=True)

    return centred


def shifted(network: Classifier, shift: Callable[[Tensor], Tensor]) -> Classifier:
    """Returns f_i + g, for a ``shift`` g from (B, D) to (B,)."""
    return lambda x: network(x) + shift(x).unsqueeze(1)


def stripes(shape: Sequence[int]) -> Tensor:
    """Returns a unit pattern with shape (D,): vertical stripes, one pixel wide, of both signs."""
    signs = 1.0 - 2.0 * (torch.arange(shape[-1]) % 2)
    pattern = signs.expand(*shape).flatten()
    return pattern / pattern.norm()


@torch.enable_grad()
def logit_gradients(network: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the logits with shape (B, C), and the gradients of all with shape (C, B, D).

    One forward and C backward passes. Both are constants.
    """
    x = x.detach().requires_grad_()
    logits = network(x)
    rows = [torch.autograd.grad(row.sum(), x, retain_graph=True)[0] for row in logits.unbind(1)]
    return logits.detach(), torch.stack(rows)


@torch.no_grad()
def accuracy(network: Classifier, x: Tensor, labels: Tensor) -> float:
    """Returns the share of points with the largest logit at their label."""
    logits = torch.cat([network(rows) for rows in x.split(ROWS)])
    return float((logits.argmax(1) == labels).double().mean())
