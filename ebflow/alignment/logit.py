r"""A classifier's logits as log-densities.

With :math:`p(x, y) = e^{f_y(x)} / Z` the true-class logit is a class-conditional log-density up to
a constant, :math:`\log p(x \mid y) = f_y(x) + \text{const}`, and its input-gradient is the score:
every objective of ``objectives.py`` applies to it. The implicit marginal is
:math:`\log p(x) = \operatorname{logsumexp}_j f_j(x) + \text{const}`, with the score
:math:`\sum_j p(j \mid x) \nabla f_j`.

Cross-entropy determines only differences of logits: :math:`f_i + g` with any scalar g(x) is the
same classifier and another density (``fooling.py``).

Source: Srinivas, Fleuret (2021), arXiv:2006.09128; Your Classifier is Secretly an Energy Based
Model and You Should Treat it Like One (Grathwohl et al., 2020), arXiv:1912.03263 (marginal).
"""

__all__ = ["Classifier", "ClassLogit", "accuracy", "less_mean", "logit_gradients"]

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..density import AutogradEvaluation, Evaluation, LogDensity
from .laplacian import laplacian

Classifier = Callable[[Tensor], Tensor]
"""A function from points (B, D) to logits (B, C), which does not mix examples."""

ROWS = 1000
"""Points at a time without gradients."""


class ClassLogit(LogDensity):
    """Creates the ``LogDensity`` log p(x | y) = f_y(x) + const at labelled points.

    The score is a backward pass. The Laplacian is one forward sweep if ``laplacian`` supports the
    network, and D backward passes otherwise. The logits of the first points are stored, so that a
    cross-entropy at these points costs no further pass.

    Arguments:
        network: The classifier.
        labels: y with shape (B,). At K B points, which are K copies of the batch one after
            another, each copy has these labels.
    """

    def __init__(self, network: Classifier, labels: Tensor) -> None:
        self.network, self.labels = network, labels
        self.logits: Tensor | None = None

    def energy(self, x: Tensor) -> Tensor:
        """Returns −f_y(x) with shape (B,)."""
        logits = self.network(x)
        self.keep(logits)
        labels = self.labels.repeat(len(x) // len(self.labels))
        return -logits.gather(1, labels.unsqueeze(1)).squeeze(1)

    def at(self, x: Tensor, *, training: bool = False) -> Evaluation:
        """Returns the logit at ``x``."""
        return _LogitEvaluation(self, x)

    def keep(self, logits: Tensor) -> None:
        """Stores the logits of the first points."""
        if self.logits is None:
            self.logits = logits


class _LogitEvaluation(AutogradEvaluation):
    def __init__(self, density: ClassLogit, x: Tensor) -> None:
        super().__init__(density.energy, x)
        self.density = density

    def laplacian(self) -> Tensor:
        """Returns tr ∇s of the own class's logit, in one forward sweep or by autograd."""
        network = self.density.network
        found = laplacian(network, self.x) if isinstance(network, nn.Module) else None
        if found is None:
            return super().laplacian()
        logits, tangents, bend = found
        self.density.keep(logits)
        own = self.density.labels.view(-1, 1)
        rows = tangents.gather(2, own.expand(len(tangents), -1, 1)).squeeze(2)
        self._score = rows.mT
        return bend.gather(1, own).squeeze(1)


def less_mean(network: Classifier) -> Classifier:
    """Returns the same classifier with the logits f_i − mean_j f_j, which no shift changes."""

    def centred(x: Tensor) -> Tensor:
        logits = network(x)
        return logits - logits.mean(1, keepdim=True)

    return centred


def logit_gradients(network: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the logits with shape (B, C) and ∇f_j of all classes with shape (C, B, D).

    One forward and C backward passes; the result has no further derivatives.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = network(x)
        rows = [
            torch.autograd.grad(row.sum(), x, retain_graph=True)[0] for row in logits.unbind(1)
        ]
    return logits.detach(), torch.stack(rows)


@torch.no_grad()
def accuracy(network: Classifier, x: Tensor, labels: Tensor) -> float:
    """Returns the share of points with the largest logit at their label."""
    logits = torch.cat([network(rows) for rows in x.split(ROWS)])
    return float((logits.argmax(1) == labels).double().mean())
