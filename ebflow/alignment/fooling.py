r"""Fooling: classifiers with other gradients and the same predictions.

A scalar g added to every logit changes neither posteriors nor losses nor loss-gradients, and adds
:math:`\nabla g` to every logit-gradient. With a unit pattern t,

=============  ==========================================  ================  ===============
``linear``     :math:`g = a\, t \cdot x`                   ∇g = a t          Δg = 0
``quadratic``  :math:`g = -\tfrac{a}{2} \|x - t\|^2`       ∇g = −a (x − t)   Δg = −a D
``sine``       :math:`g = a \sin(w \cdot x)`               ‖∇g‖ ≤ a ‖w‖      Δg = −‖w‖² g
=============  ==========================================  ================  ===============

A *ripple* changes loss-gradients, unlike a shift: :math:`\delta \sin(w \cdot x / \delta)` on one
logit changes a loss by δ at most, because a loss changes by less than a logit, and its gradient by
up to ‖w‖. ``target_gradient`` trains a pattern into the weights.

Source of the shift's invariance: Srinivas, Fleuret (2021), arXiv:2006.09128.
"""

__all__ = ["SHIFTS", "Invariants", "invariants", "linear", "quadratic", "ripple", "shifted",
           "sine", "stripes", "target_gradient"]  # fmt: skip

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..bijections.base import sum_event
from ..density import LogDensity
from ..objectives import Objective
from .logit import Classifier, logit_gradients

Shift = Callable[[Tensor], Tensor]
"""g, from (B, D) to (B,)."""


def linear(pattern: Tensor, size: float = 100.0) -> Shift:
    """Returns g = a t·x, for a unit ``pattern`` t with shape (D,) and ``size`` a."""
    return lambda x: size * (x @ pattern)


def quadratic(pattern: Tensor, size: float = 100.0) -> Shift:
    """Returns g = −a ‖x − t‖² / 2."""
    return lambda x: -size / 2 * (x - pattern).square().sum(1)


def sine(pattern: Tensor, size: float = 50.0) -> Shift:
    """Returns g = a sin(w·x) with w = 2π t."""
    return lambda x: size * torch.sin(2 * math.pi * (x @ pattern))


SHIFTS: dict[str, Callable[..., Shift]] = {f.__name__: f for f in (linear, quadratic, sine)}
"""Shifts of all logits by name, as functions of a pattern and a size."""


def shifted(network: Classifier, shift: Shift) -> Classifier:
    """Returns f_i + g."""
    return lambda x: network(x) + shift(x).unsqueeze(1)


def ripple(network: Classifier, pattern: Tensor, *, delta: float = 1e-3, size: float = 10.0,
           which: int = 0) -> Classifier:  # fmt: skip
    """Returns the classifier with δ sin(w·x/δ) on one logit, w being ``size`` times ``pattern``.

    Its argument is of order ‖w‖/δ: in float32 its phase is rounded to about 1e-7 ‖w‖/δ.
    """

    def rippled(x: Tensor) -> Tensor:
        wave = delta * torch.sin(size / delta * (x @ pattern))
        logits = network(x)
        own = F.one_hot(torch.tensor(which, device=x.device), logits.shape[1])
        return logits + wave.unsqueeze(1) * own

    return rippled


def stripes(shape: Sequence[int]) -> Tensor:
    """Returns a unit pattern with shape (D,): vertical stripes, one pixel wide, of both signs."""
    signs = 1.0 - 2.0 * (torch.arange(shape[-1]) % 2)
    pattern = signs.expand(*shape).flatten()
    return pattern / pattern.norm()


def target_gradient(target: Tensor, size: float = 10.0) -> Objective:
    """Returns ‖g − b t‖², which trains the gradient b t into a classifier's weights.

    Arguments:
        target: A unit pattern t with shape (D,).
        size: b.
    """

    def fool(density: LogDensity, x: Tensor, *, generator: torch.Generator) -> Tensor:
        residual = density.score(x) - size * target.to(x)
        return sum_event(residual * residual, x)

    return fool


@dataclass(frozen=True)
class Invariants:
    """Differences between a classifier and one with changed logits.

    Attributes:
        posterior: The largest change of a posterior probability.
        same: The share of points with an unchanged prediction.
        loss: The largest change of a cross-entropy, in nats.
        loss_gradient: Mean ‖change of the loss-gradient‖ over the mean ‖loss-gradient‖.
        logit_gradient: The same of the true class's logit-gradient.
    """

    posterior: float
    same: float
    loss: float
    loss_gradient: float
    logit_gradient: float


def invariants(before: Classifier, after: Classifier, x: Tensor, labels: Tensor) -> Invariants:
    """Compares two classifiers at labelled points with shape (B, D)."""
    (first, ours), (second, theirs) = (logit_gradients(f, x) for f in (before, after))
    index = torch.arange(len(x), device=x.device)
    loss = [F.cross_entropy(f, labels, reduction="none") for f in (first, second)]
    slopes = [_loss_gradient(f, g, labels) for f, g in ((first, ours), (second, theirs))]
    own = [g[labels, index] for g in (ours, theirs)]
    return Invariants(
        posterior=float((first.softmax(1) - second.softmax(1)).abs().max()),
        same=float((first.argmax(1) == second.argmax(1)).double().mean()),
        loss=float((loss[0] - loss[1]).abs().max()),
        loss_gradient=_relative(*slopes),
        logit_gradient=_relative(*own),
    )


def _loss_gradient(logits: Tensor, gradients: Tensor, labels: Tensor) -> Tensor:
    """Returns ∇(−log p(y | x)) = Σ_j p_j ∇f_j − ∇f_y with shape (B, D)."""
    mean = torch.einsum("bj,jbd->bd", logits.softmax(1), gradients)
    return mean - gradients[labels, torch.arange(len(labels), device=labels.device)]


def _relative(before: Tensor, after: Tensor) -> float:
    return float((after - before).norm(dim=1).mean() / before.norm(dim=1).mean())
