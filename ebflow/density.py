r"""Unnormalized log-densities: the interface between densities and objectives.

A density over events has an energy :math:`E`, with :math:`\log p(x) = -E(x) - \log Z`. Its score
:math:`s = \nabla_x \log p = -\nabla_x E` and the quadratic form :math:`v^\top \nabla s\, v` do
not depend on :math:`Z`. Objectives use ``LogDensity`` and nothing else.

The energy alone is enough: autograd computes everything else, by one backward pass for the score
and one more for every slice of the curvature.

The trace of ∇s has a closed form for a flow with one layer that is not linear, if this layer acts
on every element alone (dense – activation – dense), and the base is N(0, I). Let A be the Jacobian
of the layers before it and C that of the layers behind it, both constant. Let :math:`f` be the
layer, :math:`\psi = \sum_i \log f'_i` its log-determinant and :math:`s` the score over its output:

.. math::
    \operatorname{tr} \nabla s_x = -f'^\top \left[ (A A^\top) \circ (C^\top C) \right] f'
        + \operatorname{diag}(A A^\top)^\top \left( s \circ f'' + \psi'' \right).

All rows of a batch share the two Gram matrices; nothing is factorized. Without such a layer the
trace is :math:`-\|A\|_F^2`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from .bijections.activations import Elementwise
from .bijections.base import (
    Bijection,
    ConstantJacobian,
    Linearization,
    gradient,
    sum_event,
    unit_vectors,
)
from .bijections.reshape import Reshape

ELEMENTS = 2**22  # Elements of the tangents that ``laplacian`` computes at a time


class Evaluation(ABC):
    """A log-density at one batch of points ``x`` with shape (B, *event).

    Each result is computed once. Values are in nats.
    """

    x: Tensor
    latent: Tensor | None = None  #: The latent of a flow, with shape (B, *event)

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
        """Returns the exact tr ∇s with shape (B,), by D directions, a part of them at a time.

        With gradients, all parts stay in memory for the backward pass: O(B D²) numbers a layer.
        """
        x = self.x
        if not len(x):
            return x.new_zeros(0)
        parts = unit_vectors(x[0]).unsqueeze(1).split(max(1, ELEMENTS // x.numel()))
        return sum(self.curvature(part).sum(0) for part in parts).expand(len(x))


class LogDensity(ABC):
    """A log-density up to a constant; ``x`` has shape (B, *event), values are in nats.

    Implementing one: ``energy`` is enough. For closed forms, return your own ``Evaluation`` from
    ``at``.
    """

    unit_curvature = False  #: True if ∇s = −I everywhere

    @abstractmethod
    def energy(self, x: Tensor) -> Tensor:
        """Returns E(x) with shape (B,); it must not mix examples."""

    def at(self, x: Tensor) -> Evaluation:
        """Returns the density at ``x``, whose results share computations."""
        return AutogradEvaluation(self.energy, x)

    def score(self, x: Tensor) -> Tensor:
        """Returns ∇ₓ log p(x) with shape (B, *event), differentiable in the parameters."""
        return self.at(x).score

    def directional(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns v·s and v·∇s·v with shape (K, B), for ``v`` with shape (K, B, *event)."""
        return self.at(x).directional(v)


class EnergyFunction(LogDensity):
    """Creates a ``LogDensity`` from any twice differentiable energy (B, *event) → (B,), in nats.

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
        return self._energy(x)


class AutogradEvaluation(Evaluation):
    """An energy at ``x``, with all derivatives by autograd."""

    def __init__(self, energy: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self._function, self.x = energy, x

    @cached_property
    def energy(self) -> Tensor:
        return self._function(self.x)

    @cached_property
    def _point_and_score(self) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            x = self.x.clone() if self.x.is_inference() else self.x
            point = x if x.requires_grad else x.detach().requires_grad_()
            self.energy = self._function(point)
            return point, gradient([-self.energy.sum()], point)

    @property
    def score(self) -> Tensor:
        _, score = self._point_and_score
        return score if torch.is_grad_enabled() else score.detach()

    def curvature(self, v: Tensor) -> Tensor:
        point, score = self._point_and_score
        with torch.inference_mode(False):
            rows = [gradient([(score * row).sum()], point) for row in v]
        return sum_event(torch.stack(rows) * v, score)


class FlowEvaluation(Evaluation):
    """A flow at one batch of points; sweeps through the layers are shared by all results."""

    def __init__(self, layers: Sequence[Bijection], base: LogDensity, x: Tensor) -> None:
        self.x, self._layers, self._base = x, layers, base
        self._linearizations: list[Linearization] = []
        self._log_dets: list[Tensor] = []
        self._scores: list[Tensor] = []

    @cached_property
    def latent(self) -> Tensor:
        x = self.x
        for layer in self._layers:
            if layer.constant_jacobian:
                x = layer(x)
            else:
                x, log_det = layer.forward_and_log_det(x)
                self._log_dets.append(log_det)
        return x

    @cached_property
    def energy(self) -> Tensor:
        """E(x) in nats with shape (B,), with no log-determinant of a linear layer."""
        energy = self._base_at.energy
        log_dets = self._log_dets or [at.log_det() for at in self._linearizations]
        return without_nan(energy - sum(log_dets), self.x)

    @property
    def score(self) -> Tensor:
        """∇ₓ log p(x) with shape (B, *event), by 2 L GEMMs."""
        return self._score_before(0)

    @property
    def linearizations(self) -> list[Linearization]:
        """The layers at their inputs."""
        if not self._linearizations and self._layers:
            x = self.x
            for layer in self._layers:
                self._linearizations.append(layer.linearize(x))
                x = self._linearizations[-1].y
            self.latent, self._base_at = x, self._base.at(x)  # gradients of scores start there
        return self._linearizations

    def curvature(self, v: Tensor) -> Tensor:
        """Returns v·∇s·v, by one tangent sweep of L GEMMs for each slice."""
        return self._curvature(self._tangents(v))

    def directional(self, v: Tensor) -> tuple[Tensor, Tensor]:
        # J v and the score before the first activation give v·s, so no layer before it is
        # transposed.
        tangents = self._tangents(v)
        bent = next((i for i, x in enumerate(self._layers) if not x.constant_jacobian), -1)
        score = self._score_before(bent % len(tangents))
        return sum_event(tangents[bent] * score, score), self._curvature(tangents)

    def laplacian(self) -> Tensor:
        """Returns the exact tr ∇s with shape (B,), in closed form or by D tangent sweeps."""
        found = self._closed_laplacian() if self._base.unit_curvature and len(self.x) else None
        return super().laplacian() if found is None else found

    def _closed_laplacian(self) -> Tensor | None:
        """Returns tr ∇s with shape (B,) if the layers have the closed form, else None."""
        layers, x = self._layers, self.x
        bent = [index for index, layer in enumerate(layers) if not layer.constant_jacobian]
        if not bent:
            return -_columns(layers, x[0]).square().sum().expand(len(x))
        index = bent[0]
        if len(bent) > 1 or not isinstance(layers[index], Elementwise):
            return None
        at = self.linearizations[index]
        rows = self._rows(index)
        columns = _columns(layers[index + 1 :], at.y[0])
        rows, columns = rows @ rows.mT, columns @ columns.mT
        slope = at.tangent(torch.ones_like(at.y)[None])[0].flatten(1)
        spread = ((slope @ (rows * columns)) * slope).sum(1)
        lengths = rows.diagonal().sqrt().view(1, 1, *at.y.shape[1:])
        return at.curvature(lengths, self._score_before(index + 1))[0] - spread

    def _rows(self, index: int) -> Tensor:
        """Returns the Jacobian of the layers before a layer, up to the order of its columns."""
        first, event = 0, self.x[0]
        while first < index and isinstance(self._layers[first], Reshape):
            event = self.linearizations[first].y[0]
            first += 1
        return _columns(self._layers[first:index], event).mT

    @cached_property
    def _base_at(self) -> Evaluation:
        return self._base.at(self.latent)

    def _score_before(self, index: int) -> Tensor:
        """Returns the score over the input of a layer, or over u behind the last one."""
        points = self.linearizations
        if not self._scores:
            self._scores.append(self._base_at.score)
        for at in points[index : len(points) - len(self._scores) + 1][::-1]:
            self._scores.append(at.pullback(self._scores[-1]))
        return self._scores[len(points) - index]

    def _tangents(self, v: Tensor) -> list[Tensor]:
        """Returns v at the input of every layer, and behind the last one."""
        tangents = [v]
        for at in self.linearizations:
            tangents.append(at.tangent(tangents[-1]))
        return tangents

    def _curvature(self, tangents: Sequence[Tensor]) -> Tensor:
        total = self._base_at.curvature(tangents[-1])
        for index, layer in enumerate(self._layers):
            if not layer.constant_jacobian:
                score = self._score_before(index + 1)
                total = total + self.linearizations[index].curvature(tangents[index], score)
        return total


def _columns(layers: Sequence[ConstantJacobian], event: Tensor) -> Tensor:
    """Returns the columns of the layers' Jacobian as rows: Jᵀ with shape (D, D)."""
    if not layers:
        return unit_vectors(event).flatten(1)
    columns = layers[0].columns(event)
    for layer in layers[1:]:
        columns = layer.linear(columns)
    return columns.flatten(1)


def without_nan(energy: Tensor, x: Tensor) -> Tensor:
    """Returns energies (B,), ∞ instead of NaN for finite points: numbers overflow far away."""
    finite = sum_event(x - x, x) == 0
    return torch.where(energy.isnan() & finite, torch.inf, energy)
