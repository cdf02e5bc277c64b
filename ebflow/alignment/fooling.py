r"""Fooling: classifiers with other gradients and the same predictions.

A scalar g added to every logit changes neither posteriors nor losses nor loss-gradients, and adds
:math:`\nabla g` to every logit-gradient: with a unit pattern t and g = a t·x, whatever one likes.

Source of the shift's invariance: Srinivas, Fleuret (2021), arXiv:2006.09128.
"""

__all__ = ["invariants", "linear", "shifted", "stripes"]

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .logit import Classifier
from .metrics import gradients

Shift = Callable[[Tensor], Tensor]  # g, from (B, D) to (B,)


def linear(pattern: Tensor, size: float) -> Shift:
    """Returns g = a t·x, for a unit ``pattern`` t with shape (D,) and ``size`` a."""
    return lambda x: size * (x @ pattern)


def shifted(network: Classifier, shift: Shift) -> Classifier:
    """Returns f_i + g."""
    return lambda x: network(x) + shift(x).unsqueeze(1)


def stripes(shape: Sequence[int]) -> Tensor:
    """Returns a unit pattern with shape (D,): vertical stripes, one pixel wide, of both signs."""
    signs = 1.0 - 2.0 * (torch.arange(shape[-1]) % 2)
    pattern = signs.expand(*shape).flatten()
    return pattern / pattern.norm()


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
