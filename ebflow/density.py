r"""Unnormalised log-densities: what an objective may ask of one.

A density over events is given by its energy :math:`E`, :math:`\log p(x) = -E(x) - \log Z`. Its
score :math:`s = \nabla_x \log p = -\nabla_x E` and the quadratic form :math:`v^\top \nabla s\, v`
do not see :math:`Z`. Objectives are written against ``LogDensity`` and nothing else.

The energy alone is enough: everything else then comes by autograd, at one backward pass for the
score and one more for every slice of the curvature. A flow, a mixture of Gaussians and a
classifier's logit have closed forms of parts of it.
"""

__all__ = ["AutogradEvaluation", "EnergyFunction", "Evaluation", "LogDensity", "sum_event",
           "trace"]  # fmt: skip

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from .bijections.base import sum_event
from .networks import units

ELEMENTS = 2**22
"""Elements of the tangents that are carried at a time by ``trace``."""


class Evaluation(ABC):
    """A log-density at one batch of points ``x`` with shape (B, *event).

    What is computed once is shared by all that ask for it. Values are in nats.
    """

    x: Tensor
    latent: Tensor | None = None
    """The latent of a flow, with shape (B, *event)."""

    @property
    @abstractmethod
    def energy(self) -> Tensor:
        """E(x) with shape (B,)."""

    @property
    @abstractmethod
    def score(self) -> Tensor:
        """∇ₓ log p(x) with shape (B, *event), differentiable in the parameters."""

    @abstractmethod
    def curvature(self, v: Tensor) -> Tensor:
        """Returns v·∇s·v with shape (K, B), for ``v`` with shape (K, B, *event)."""

    def directional(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns v·s and v·∇s·v with shape (K, B), for ``v`` with shape (K, B, *event)."""
        return sum_event(self.score * v, self.x), self.curvature(v)

    def laplacian(self) -> Tensor:
        """Returns tr ∇s, exactly, with shape (B,); by D slices unless there is a closed form."""
        return trace(self.curvature, self.x)


class LogDensity(ABC):
    """A log-density up to a constant; ``x`` has shape (B, *event), values are in nats.

    Implementing one: ``energy`` is enough. Where more is known in closed form, return an
    ``Evaluation`` of one's own from ``at``.
    """

    @abstractmethod
    def energy(self, x: Tensor) -> Tensor:
        """Returns E(x) with shape (B,); examples must not see each other."""

    def at(self, x: Tensor, *, training: bool = False) -> Evaluation:
        """Returns the density at ``x``, for several questions about the same points.

        Arguments:
            x: The points, with shape (B, *event).
            training: Whether what comes of it is differentiated as a whole, by one backward pass.
        """
        return AutogradEvaluation(self.energy, x)

    def score(self, x: Tensor) -> Tensor:
        """Returns ∇ₓ log p(x) with shape (B, *event), differentiable in the parameters."""
        return self.at(x).score

    def directional(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns v·s and v·∇s·v with shape (K, B), for ``v`` with shape (K, B, *event)."""
        return self.at(x).directional(v)

    def score_and_curvature(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns s with shape (B, *event) and v·∇s·v with shape (K, B)."""
        at = self.at(x)
        curvature = at.curvature(v)  # first: it asks for more derivatives than the score does
        return at.score, curvature

    def score_and_laplacian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns s with shape (B, *event) and tr ∇s, exactly, with shape (B,)."""
        at = self.at(x)
        laplacian = at.laplacian()  # first: its sweep may give the score as well
        return at.score, laplacian


class EnergyFunction(LogDensity):
    """Creates a ``LogDensity`` of any twice differentiable energy, by autograd.

    Arguments:
        energy: A function from (B, *event) to (B,), in nats: a network, say.

    Example:
        >>> density = ebflow.EnergyFunction(lambda x: 0.5 * (x * x).sum(1))
        >>> torch.allclose(density.score(x), -x)
        True
        >>> float(density.at(x).laplacian()[0])
        -3.0
    """

    def __init__(self, energy: Callable[[Tensor], Tensor]) -> None:
        self._energy = energy

    def energy(self, x: Tensor) -> Tensor:
        """Returns E(x) with shape (B,)."""
        return self._energy(x)


class AutogradEvaluation(Evaluation):
    """An energy at ``x``, all derivatives by autograd."""

    def __init__(self, energy: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self._function, self.x = energy, x
        self._point: Tensor | None = None
        self._energy: Tensor | None = None
        self._score: Tensor | None = None

    @property
    def energy(self) -> Tensor:
        if self._energy is None:
            self._energy = self._function(self.x)
        return self._energy

    @property
    def score(self) -> Tensor:
        if self._score is None:
            with torch.inference_mode(False), torch.enable_grad():
                x = self.x.clone() if self.x.is_inference() else self.x
                self._point = x if x.requires_grad else x.detach().requires_grad_()
                self._energy = self._function(self._point)
                self._score = _gradient(-self._energy.sum(), self._point)
        return self._score if torch.is_grad_enabled() else self._score.detach()

    def curvature(self, v: Tensor) -> Tensor:
        with torch.enable_grad():
            score = self.score
        if not score.requires_grad:  # the log-density is linear in x
            return score.new_zeros(v.shape[0], len(score))
        with torch.inference_mode(False):
            rows = [_gradient((score * row).sum(), self._point) for row in v]
        return sum_event(torch.stack(rows) * v, score)


def trace(curvature: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Returns Σ_k e_k·∇s·e_k with shape (B,), by D directions, a part of them at a time.

    While gradients are recorded, all parts are kept for the backward pass: O(B D²) numbers a
    layer.

    Arguments:
        curvature: From directions with shape (K, 1, *event) to v·∇s·v with shape (K, B).
        x: The points, with shape (B, *event).
    """
    if not len(x):
        return x.new_zeros(0)
    parts = units(x[0]).unsqueeze(1).split(max(1, ELEMENTS // x.numel()))
    total = sum((curvature(part).sum(0) for part in parts), start=x.new_zeros(()))
    return total.expand(len(x))


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(value, x, create_graph=True, materialize_grads=True)[0]
