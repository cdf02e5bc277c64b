r"""Regularizers of a classifier's input-gradients, each an objective of its true-class logit.

The loss is :math:`\text{CE} + \lambda \, \text{mean}_b \, R(f_y, x_b)` with one of

==========  ==================================================================
``score``   :math:`h + \tfrac12 \|g\|^2 + \mu h^2`, score matching, h an estimate of tr H
``anti``    :math:`-\min(h, \tau)`, which maximizes the trace up to a ceiling
``gnorm``   :math:`\tfrac12 \|g\|^2`
``fool``    :math:`\|g - b\,t\|^2`, for a pattern t: see ``fooling.target_gradient``
==========  ==================================================================

Here :math:`g = \nabla f_y`. The page "Studies" explains why ``score`` is nearly ``gnorm`` at
:math:`\lambda (1 + 8 \mu / (K \sigma^2))`, and what ``centred`` fits.

Source: Rethinking the Role of Gradient-Based Attribution Methods for Model Interpretability
(Srinivas, Fleuret, 2021), arXiv:2006.09128, and its code (idiap/rethinking-saliency).
"""

import torch
from torch import Tensor

from ..bijections.base import sum_event
from ..density import LogDensity
from ..objectives import ESTIMATORS, Objective, draw_directions
from .fooling import target_gradient
from .logit import ClassLogit, less_mean


def score_matching(
    density: LogDensity,
    x: Tensor,
    *,
    generator: torch.Generator,
    estimator: str = "taylor_cv",
    directions: str = "rademacher",
    slices: int = 1,
    step: float = 0.03,
    stability: float = 1e-3,
    floor: float | None = None,
) -> Tensor:
    """Returns ½ ‖g‖² + h + μ h², with an estimate h of the trace.

    Arguments:
        estimator: A name in ``objectives.ESTIMATORS``; K is ``slices``, and σ is ``step``.
        stability: μ.
        floor: The lower bound of h; None: no bound.
    """
    u = draw_directions(directions, slices, x, generator)
    gradient, traces = ESTIMATORS[estimator](density, x, u, step)
    h = traces.mean(0) if floor is None else traces.mean(0).clamp(min=floor)
    return 0.5 * sum_event(gradient * gradient, x) + h + stability * h.square()


def anti_score_matching(
    density: LogDensity,
    x: Tensor,
    *,
    generator: torch.Generator,
    estimator: str = "taylor_cv",
    directions: str = "rademacher",
    slices: int = 1,
    step: float = 0.03,
    ceiling: float = 1000.0,
) -> Tensor:
    """Returns −min(h, τ) of every sample, without a gradient norm.

    Arguments as in ``score_matching``, and ``ceiling``: τ.
    """
    u = draw_directions(directions, slices, x, generator)
    return -ESTIMATORS[estimator](density, x, u, step)[1].mean(0).clamp(max=ceiling)


def gradient_norm(density: LogDensity, x: Tensor, *, generator: torch.Generator) -> Tensor:
    """Returns ½ ‖g‖²; one backward pass, differentiated again."""
    gradient = density.score(x)
    return 0.5 * sum_event(gradient * gradient, x)


def centred(regularizer: Objective) -> Objective:
    """Returns the same regularizer of the true class's logit less the mean over classes."""

    def of_centred(density: ClassLogit, x: Tensor, *, generator: torch.Generator) -> Tensor:
        inner = ClassLogit(less_mean(density.network), density.labels)
        penalty = regularizer(inner, x, generator=generator)
        density.logits = inner.logits  # cross-entropy does not see the shift
        return penalty

    return of_centred


REGULARIZERS: dict[str, Objective] = {
    "score": score_matching,
    "anti": anti_score_matching,
    "gnorm": gradient_norm,
    "fool": target_gradient,
}


def equivalent_strength(
    weight: float, *, estimator: str, stability: float, slices: int, step: float
) -> float:
    """Returns the λ of ``gnorm`` that penalizes gradients as ``score`` does."""
    one_sided = estimator == "taylor"
    return weight * (1 + 8 * stability / (slices * step**2)) if one_sided else weight


def smallest_trace(width: int, noise: float) -> float:
    """Returns −D/s², the least mean trace at the optimum of data smoothed by s.

    There −E tr H = E ‖∇ log p‖². The score is the mean of −ε/s given x, so its second moment is at
    most D/s². A lower trace is a collapse: spikes at training points, narrower than the noise.
    """
    return -width / noise**2
