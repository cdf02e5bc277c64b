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

__all__ = ["SHIFTS", "invariants", "linear", "quadratic", "ripple", "shifted",
           "sine", "stripes", "target_gradient"]  # fmt: skip

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..bijections.base import sum_event
from ..density import LogDensity
from ..objectives import Objective
from .logit import Classifier
from .metrics import gradients

Shift = Callable[[Tensor], Tensor]
"""g, from (B, D) to (B,)."""


def linear(pattern: Tensor, size: float) -> Shift:
    """Returns g = a t·x, for a unit ``pattern`` t with shape (D,) and ``size`` a."""
    return lambda x: size * (x @ pattern)


def quadratic(pattern: Tensor, size: float) -> Shift:
    """Returns g = −a ‖x − t‖² / 2."""
    return lambda x: -size / 2 * (x - pattern).square().sum(1)


def sine(pattern: Tensor, size: float) -> Shift:
    """Returns g = a sin(w·x) with w = 2π t."""
    return lambda x: size * torch.sin(2 * math.pi * (x @ pattern))


SHIFTS: dict[str, Callable[..., Shift]] = {f.__name__: f for f in (linear, quadratic, sine)}
"""Shifts of all logits by name, as functions of a pattern and a size."""


def shifted(network: Classifier, shift: Shift) -> Classifier:
    """Returns f_i + g."""
    return lambda x: network(x) + shift(x).unsqueeze(1)


def ripple(
    network: Classifier, pattern: Tensor, *, size: float, delta: float = 1e-3
) -> Classifier:
    """Returns the classifier with δ sin(w·x/δ) on its first logit; w is ``size`` × ``pattern``.

    Its argument is of order ‖w‖/δ: in float32 its phase is rounded to about 1e-7 ‖w‖/δ.
    """

    def rippled(x: Tensor) -> Tensor:
        logits = network(x)
        wave = delta * torch.sin(size / delta * (x @ pattern))
        return torch.cat([logits[:, :1] + wave.unsqueeze(1), logits[:, 1:]], 1)

    return rippled


def stripes(shape: Sequence[int]) -> Tensor:
    """Returns a unit pattern with shape (D,): vertical stripes, one pixel wide, of both signs."""
    signs = 1.0 - 2.0 * (torch.arange(shape[-1]) % 2)
    pattern = signs.expand(*shape).flatten()
    return pattern / pattern.norm()


def target_gradient(target: Tensor, size: float) -> Objective:
    """Returns ‖g − b t‖², which trains the gradient b t into a classifier's weights.

    Arguments:
        target: A unit pattern t with shape (D,).
        size: b.
    """

    def fool(density: LogDensity, x: Tensor, *, generator: torch.Generator) -> Tensor:
        residual = density.score(x) - size * target.to(x)
        return sum_event(residual * residual, x)

    return fool


def invariants(
    before: Classifier, after: Classifier, x: Tensor, labels: Tensor
) -> dict[str, float]:
    """Returns the differences between two classifiers at labelled points with shape (B, D).

    ``posterior`` and ``loss`` are the largest changes of a posterior probability and of a
    cross-entropy in nats, and ``same`` is the share of points with an unchanged prediction.
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
