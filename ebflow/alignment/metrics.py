r"""Distances of a classifier's input-gradients from scores.

With the logit-gradients :math:`G_j = \nabla f_j` and posteriors p of a classifier, and the class
scores :math:`S_j` and the marginal score S of a reference, at labelled points,

* **A1** = cos(G_y, S_y): the class-conditional density, which a shift of all logits changes;
* **A2** = cos(Σ_j p_j G_j, S): the marginal density;
* **A3** = cos(G_y − mean_j G_j, S_y − mean_j S_j): the discriminative part, constant under shifts.
  The means are over classes: weighted by saturated posteriors they would vanish in rounding;
* **relF** = E‖G_y − S_y‖² / E‖S_y‖², and *relF-opt* after the best scale of G; also for centred
  gradients and scores, where no shift changes it;
* **DSM-cos** = cos(G_y(x + s ε), −ε) and the *DSM residual*
  :math:`E\|G_y(x + s\varepsilon) + \varepsilon/s\|^2 - E\|\varepsilon/s\|^2`, twice the
  score-matching objective J of the smoothed density by Stein's identity: no reference is needed.

Controls pair every point with another point's score for *its* class (``another_point``). Points
are test points with the noise of the reference's density.

Cosines with a density's scores as a measure of perceptual alignment: Which Models have
Perceptually-Aligned Gradients? An Explanation via Off-Manifold Robustness (Srinivas, Bordt,
Lakkaraju, 2023), arXiv:2305.19101.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..evaluation import Estimate
from ..randomness import uniform
from .logit import Classifier, logit_gradients
from .reference import Scores

ROWS = 500  # Points at a time


@dataclass(frozen=True)
class Gradients:
    """A classifier at labelled points."""

    labels: Tensor  # y with shape (B,)
    logits: Tensor  # f with shape (B, C)
    classes: Tensor  # G_j of all classes with shape (C, B, D)

    @property
    def posterior(self) -> Tensor:
        """p with shape (B, C)."""
        return self.logits.softmax(1)

    @property
    def own(self) -> Tensor:
        """G_y with shape (B, D)."""
        return of_label(self.classes, self.labels)

    @property
    def marginal(self) -> Tensor:
        """Σ_j p_j G_j with shape (B, D)."""
        return torch.einsum("bj,jbd->bd", self.posterior, self.classes)

    @property
    def loss(self) -> Tensor:
        """∇(−log p(y | x)) = Σ_j p_j (G_j − G_y) with shape (B, D).

        The difference comes first: where p_y is nearly 1, that of the sums would be rounding.
        """
        return torch.einsum("bj,jbd->bd", self.posterior, self.classes - self.own)

    @property
    def loss_direction(self) -> Tensor:
        """The loss-gradient over 1 − p_y, with shape (B, D); it does not vanish if p_y is 1."""
        rivals = self.logits.scatter(1, self.labels.unsqueeze(1), -torch.inf).softmax(1)
        return torch.einsum("bj,jbd->bd", rivals, self.classes - self.own)

    @property
    def centred(self) -> Tensor:
        """G_y − mean_j G_j with shape (B, D)."""
        return _centred(self.classes, self.labels)


def gradients(network: Classifier, x: Tensor, labels: Tensor) -> Gradients:
    """Returns the logit-gradients of all classes, by C backward passes; they are constants."""
    parts = [logit_gradients(network, rows) for rows in x.split(ROWS)]
    logits, classes = (torch.cat([part[k] for part in parts], dim=k) for k in (0, 1))
    return Gradients(labels, logits, classes)


def alignments(
    gradients: Gradients, reference: Scores, points: Tensor | None = None
) -> dict[str, Tensor]:
    """Returns A1, A2 and A3 of every point, with shape (B,).

    ``points`` are the reference's points for every gradient, with shape (B,); None: the same ones.
    """
    if points is None:
        points = torch.arange(len(gradients.labels), device=gradients.labels.device)
    scores, labels = reference.classes[:, points], gradients.labels[points]
    return {
        "A1": torch.cosine_similarity(gradients.own, of_label(scores, labels)),
        "A2": torch.cosine_similarity(gradients.marginal, reference.marginal[points]),
        "A3": torch.cosine_similarity(gradients.centred, _centred(scores, labels)),
    }


def another_point(x: Tensor, generator: torch.Generator) -> Tensor:
    """Returns another point for each of ``x``, as indices with shape (B,): a random cycle."""
    order = uniform((len(x),), x, generator).argsort()
    index = torch.empty_like(order)
    index[order] = order.roll(1)
    return index


def fisher_ratios(gradients: Gradients, classes: Tensor) -> dict[str, float]:
    """Returns relF and relF-opt, plain and centred, for class scores S_j with shape (C, B, D)."""
    labels = gradients.labels
    plain, best = fisher_ratio(gradients.own, of_label(classes, labels))
    centred, best_centred = fisher_ratio(gradients.centred, _centred(classes, labels))
    return {"relF": plain, "relF-opt": best,
            "relF/centred": centred, "relF-opt/centred": best_centred}  # fmt: skip


def fisher_ratio(gradient: Tensor, score: Tensor) -> tuple[float, float]:
    """Returns relF, and relF-opt after the best scale, of rows with shape (B, D)."""
    power = score.square().sum()
    scale = (gradient * score).sum() / gradient.square().sum()
    plain, best = ((k * gradient - score).square().sum() / power for k in (1.0, scale))
    return float(plain), float(best)


def dsm(gradient: Tensor, noise: Tensor, sigma: float) -> tuple[Tensor, Estimate]:
    """Returns the DSM cosines with shape (B,), and the DSM residual with its standard error.

    ``gradient`` is G_y at x + s ε, ``noise`` is ε, both with shape (B, D), and ``sigma`` is s.
    """
    # ‖G + ε/s‖² − ‖ε/s‖², without the large terms that cancel each other
    residual = (gradient * (gradient + 2 / sigma * noise)).sum(1)
    return torch.cosine_similarity(gradient, -noise), Estimate.of(residual, name="DSM residual")


def invariants(
    before: Classifier, after: Classifier, x: Tensor, labels: Tensor
) -> dict[str, float]:
    """Returns the differences between two classifiers at labelled points with shape (B, D).

    ``posterior`` and ``loss`` are the largest changes of a posterior probability and of a
    cross-entropy in nats. ``same`` is the share of points with an unchanged prediction.
    ``loss_gradient`` and ``logit_gradient`` are mean ‖change‖ over the mean norm, of the
    loss-gradient and of the true class's logit-gradient.
    """
    one, other = (gradients(network, x, labels) for network in (before, after))
    losses = [F.cross_entropy(at.logits, labels, reduction="none") for at in (one, other)]
    same = one.logits.argmax(1) == other.logits.argmax(1)
    return {
        "posterior": float((one.posterior - other.posterior).abs().max()),
        "same": float(same.double().mean()),
        "loss": float((losses[0] - losses[1]).abs().max()),
        "loss_gradient": _relative(one.loss, other.loss),
        "logit_gradient": _relative(one.own, other.own),
    }


def _relative(before: Tensor, after: Tensor) -> float:
    return float((after - before).norm(dim=1).mean() / before.norm(dim=1).mean())


def of_label(classes: Tensor, labels: Tensor) -> Tensor:
    """Returns the row of every point's own class, from (C, B, D) to (B, D)."""
    return classes[labels, torch.arange(len(labels), device=labels.device)]


def _centred(classes: Tensor, labels: Tensor) -> Tensor:
    return of_label(classes, labels) - classes.mean(0)
