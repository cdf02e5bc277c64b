r"""Fooling: other input-gradients of the same classifier.

Softmax does not see a scalar g that is added to every logit (``logit.shifted``). Posteriors,
losses and loss-gradients stay, and every logit-gradient gains :math:`\nabla g`. With a unit
pattern t,

=============  ==========================================  ================  ===============
``linear``     :math:`g = a\, t \cdot x`                   ∇g = a t          Δg = 0
``quadratic``  :math:`g = -\tfrac{a}{2} \|x - t\|^2`       ∇g = −a (x − t)   Δg = −a D
``sine``       :math:`g = a \sin(2 \pi \, t \cdot x)`      ‖∇g‖ ≤ 2 π a      Δg = −4 π² g
=============  ==========================================  ================  ===============

No shift changes the gradient of the *loss*; a ``ripple`` does, though it hardly changes the loss.
``target_gradient`` trains a pattern into the weights.

Source of the invariance: Rethinking the Role of Gradient-Based Attribution Methods for Model
Interpretability (Srinivas, Fleuret, 2021), arXiv:2006.09128. The functions g are not from there.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..bijections.base import sum_event
from ..density import LogDensity
from .logit import Classifier, stripes

Shift = Callable[[Tensor], Tensor]  # g, from points (B, D) to (B,)


# A face of 8 × 8 pixels, which a reader recognizes at once
FACE = (
    "........",
    ".##..##.",
    ".##..##.",
    "........",
    "#......#",
    "##....##",
    ".######.",
    "........",
)


def face(shape: Sequence[int]) -> Tensor:
    """Returns a unit pattern with shape (D,): a face, positive on negative ground.

    It is enlarged to an image of any size, and the same in each colour.

    Raises:
        ValueError: If ``shape`` is not that of an image with sides of 8 pixels at least.
    """
    if not _has_room(shape):
        raise ValueError(
            f"shape: found {tuple(shape)}, expected (H, W) or (C, H, W) with sides of "
            f"{len(FACE)} at least"
        )
    signs = torch.tensor([[1.0 if mark == "#" else -1.0 for mark in line] for line in FACE])
    rows, columns = (torch.arange(side) * len(FACE) // side for side in shape[-2:])
    pattern = signs[rows][:, columns].expand(*shape).flatten()
    return pattern / pattern.norm()


def pattern_of(shape: Sequence[int]) -> Tensor:
    """Returns the pattern of fooled gradients: ``face``, or ``stripes`` if it has no room."""
    return face(shape) if _has_room(shape) else stripes(shape)


def _has_room(shape: Sequence[int]) -> bool:
    return len(shape) in (2, 3) and min(shape[-2:]) >= len(FACE)


def linear(pattern: Tensor, size: float = 100.0) -> Shift:
    """Returns g = a t·x, for a unit ``pattern`` t with shape (D,) and ``size`` a."""
    return lambda x: size * (x @ pattern)


def quadratic(pattern: Tensor, size: float = 100.0) -> Shift:
    """Returns g = −a ‖x − t‖² / 2; arguments as of ``linear``."""
    return lambda x: -size / 2 * (x - pattern).square().sum(1)


def sine(pattern: Tensor, size: float = 50.0) -> Shift:
    """Returns g = a sin(2π t·x); arguments as of ``linear``."""
    return lambda x: size * torch.sin(2 * math.pi * (x @ pattern))


#: Shifts of all logits by name, as functions of a pattern and a size
SHIFTS: dict[str, Callable[..., Shift]] = {
    "linear": linear,
    "quadratic": quadratic,
    "sine": sine,
}


def ripple(
    network: Classifier, pattern: Tensor, *, size: float = 100.0, delta: float = 1e-3
) -> Classifier:
    r"""Returns the classifier with a low wave of short wavelength on each logit.

    Logit j of C becomes :math:`f_j + \delta \sin(a \, t \cdot x / \delta + 2 \pi j / C)`. A loss
    changes by less than 2 δ, since it changes by no more than a difference of two logits. Waves
    differ in phase, so loss-gradients change by up to 2 a. In float32 a phase is rounded by about
    1e-7 a/δ.

    Arguments:
        pattern: The unit pattern t with shape (D,).
        size: The length a of a wave's gradient.
        delta: The height δ of a wave, in nats.
    """

    def rippled(x: Tensor) -> Tensor:
        logits = network(x)
        classes = logits.shape[1]
        phases = 2 * math.pi / classes * torch.arange(classes).to(logits)
        position = size / delta * (x @ pattern)
        return logits + delta * torch.sin(position.unsqueeze(1) + phases)

    return rippled


def target_gradient(
    density: LogDensity,
    x: Tensor,
    *,
    generator: torch.Generator,
    pattern: Tensor,
    length: float = 10.0,
) -> Tensor:
    """Returns ‖g − b t‖² of every point, which trains the gradient b t into the weights.

    It is an objective as those of ``regularizers``: g is the gradient of the true class's logit.
    One backward pass, differentiated again; it has no random numbers.

    Arguments:
        pattern: The unit pattern t with shape (D,).
        length: b.
    """
    residual = density.score(x) - length * pattern.to(x)
    return sum_event(residual * residual, x)
