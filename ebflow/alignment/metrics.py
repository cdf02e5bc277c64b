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

Cosines are computed for each point and then averaged. Controls pair every point with the score of
another one. Points are test points with the noise of the reference's density.

Cosines with a density's scores as a measure of perceptual alignment: Which Models have
Perceptually-Aligned Gradients? An Explanation via Off-Manifold Robustness (Srinivas, Bordt,
Lakkaraju, 2023), arXiv:2305.19101.
"""

__all__ = ["Gradients", "alignments", "cosine", "dsm", "fisher_ratio", "fisher_ratios",
           "gradients", "of_label", "shuffled"]  # fmt: skip

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..estimates import Estimate
from ..randomness import uniform
from .logit import Classifier, logit_gradients
from .reference import Scores

ROWS = 500
"""Points at a time."""


@dataclass(frozen=True)
class Gradients:
    """A classifier at labelled points.

    Attributes:
        labels: y with shape (B,).
        posterior: p with shape (B, C).
        classes: G_j of all classes with shape (C, B, D).
    """

    labels: Tensor
    posterior: Tensor
    classes: Tensor

    @property
    def own(self) -> Tensor:
        """G_y with shape (B, D)."""
        return of_label(self.classes, self.labels)

    @property
    def marginal(self) -> Tensor:
        """Σ_j p_j G_j with shape (B, D)."""
        return torch.einsum("bj,jbd->bd", self.posterior, self.classes)

    @property
    def centred(self) -> Tensor:
        """G_y − mean_j G_j with shape (B, D)."""
        return _centred(self.classes, self.labels)


def gradients(network: Classifier, x: Tensor, labels: Tensor) -> Gradients:
    """Returns the logit-gradients of all classes; O(C) backward passes."""
    parts = [logit_gradients(network, rows) for rows in x.split(ROWS)]
    logits, rows = (torch.cat([p[k] for p in parts], dim=k) for k in (0, 1))
    return Gradients(labels, logits.softmax(1), rows)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Returns the cosines of rows with shape (B, D); 0 where one is zero."""
    return F.cosine_similarity(a, b, dim=1)


def alignments(
    found: Gradients, reference: Scores, labels: Tensor | None = None
) -> dict[str, Tensor]:
    """Returns A1, A2 and A3 of every point, with shape (B,); only A2 for a marginal reference.

    Arguments:
        found: The classifier's gradients.
        reference: The reference's scores.
        labels: The classes of the reference's points; None: those of the gradients.
    """
    marginal = {"A2": cosine(found.marginal, reference.marginal)}
    if reference.classes is None:
        return marginal
    own = of_label(reference.classes, found.labels if labels is None else labels)
    return {
        "A1": cosine(found.own, own),
        **marginal,
        "A3": cosine(found.centred, own - reference.classes.mean(0)),
    }


def shuffled(scores: Scores, labels: Tensor, generator: torch.Generator) -> tuple[Scores, Tensor]:
    """Returns the scores of the points, and their classes, in another order, as a control.

    The order is a rotation of a random order. The score of another point is that of *its* class:
    the score of the first point's class there would point to that class.
    """
    size = len(scores.marginal)
    order = uniform((size,), scores.marginal, generator).argsort()
    index = torch.empty_like(order)
    index[order] = order.roll(1)
    classes = None if scores.classes is None else scores.classes[:, index]
    posterior = None if scores.posterior is None else scores.posterior[index]
    moved = Scores(scores.marginal[index], classes, posterior, scores.log_probs[index])
    return moved, labels[index]


def fisher_ratios(found: Gradients, classes: Tensor) -> dict[str, float]:
    """Returns relF and relF-opt, plain and centred, for class scores S_j with shape (C, B, D)."""
    pairs = {
        "": (found.own, of_label(classes, found.labels)),
        "/centred": (found.centred, _centred(classes, found.labels)),
    }
    ratios = {name: fisher_ratio(*pair) for name, pair in pairs.items()}
    return {
        f"{kind}{name}": value
        for name, both in ratios.items()
        for kind, value in zip(("relF", "relF-opt"), both, strict=True)
    }


def fisher_ratio(gradient: Tensor, score: Tensor) -> tuple[float, float]:
    """Returns relF, and relF-opt after the best scale, of rows with shape (B, D)."""
    power = score.square().sum()
    scale = (gradient * score).sum() / gradient.square().sum()
    plain, best = ((k * gradient - score).square().sum() / power for k in (1.0, scale))
    return float(plain), float(best)


def dsm(gradient: Tensor, noise: Tensor, sigma: float) -> tuple[Tensor, Estimate]:
    """Returns the DSM cosines with shape (B,), and the DSM residual with its standard error.

    Arguments:
        gradient: G_y at x + s ε, with shape (B, D).
        noise: ε with shape (B, D).
        sigma: s.
    """
    # ‖G + ε/s‖² − ‖ε/s‖², without the large terms that cancel each other
    residual = (gradient * (gradient + 2 / sigma * noise)).sum(1)
    return cosine(gradient, -noise), Estimate.of(residual, name="DSM residual")


def of_label(classes: Tensor, labels: Tensor) -> Tensor:
    """Returns the rows of every point's own class, from (C, B, D) to (B, D)."""
    return classes[labels, torch.arange(len(labels), device=labels.device)]


def _centred(classes: Tensor, labels: Tensor) -> Tensor:
    return of_label(classes, labels) - classes.mean(0)
