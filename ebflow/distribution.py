r"""The density that a flow gives, given a context or none: all of its mathematics.

Layers :math:`f_1 \dots f_L` carry data :math:`x` to the latent :math:`u`, whose base density is
:math:`p_0`. With :math:`\psi_i = \log |\det J_i|`, and :math:`\mathcal{C}` the layers whose
Jacobian does not depend on the input,

.. math::
    \log p(x) = \underbrace{\log p_0(u)
        + \sum_{i \notin \mathcal{C}} \psi_i(x_{i-1})}_{-E(x)}
        + \underbrace{\sum_{i \in \mathcal{C}} \psi_i}_{-\log Z}.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267.

The trace of a score's Jacobian has a closed form for a chain in which one layer alone is bent, and
acts on every element alone (dense – activation – dense), over a standard normal base. Let A be the
Jacobian of what stands before that layer and C of what stands behind it, both constant, :math:`f`
the layer and :math:`s` the score over its output:

.. math::
    \operatorname{tr} \nabla s_x = -f'^\top \left[ (A A^\top) \circ (C^\top C) \right] f'
        + \operatorname{diag}(A A^\top)^\top \left( s \circ f'' + \psi'' \right).

The two Gram matrices are one for all rows of a batch; nothing is factorised. Without such a layer
the trace is :math:`-\|A\|_F^2`.
"""

__all__ = ["FlowDistribution", "FlowEvaluation", "Shape"]

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from .bases import Base, StandardNormal
from .bijections import Bijection, Linearization
from .bijections.base import ConstantJacobian, as_autocast, sum_event
from .bijections.weighted import fixed_weights
from .density import Evaluation, LogDensity
from .networks import Jet, units
from .randomness import Generator

if TYPE_CHECKING:
    from .flow import Flow

Shape = int | Sequence[int]


class FlowEvaluation(Evaluation):
    """A flow at one batch of points: what its questions share is computed once, when first asked.

    Arguments:
        layers: The bijections, from data to latent.
        base: The density of latents.
        x: The points, with shape (B, *event).
        training: Whether what comes of it is differentiated as a whole, by one backward pass.
    """

    def __init__(
        self, layers: Sequence[Bijection], base: Base, x: Tensor, *, training: bool = False
    ) -> None:
        self.x, self._layers, self._base, self._training = x, layers, base, training
        self._inputs: list[Tensor] = []
        self._known: list[Linearization] = []
        self._latent: Tensor | None = None
        self._at_base: Evaluation | None = None
        self._energy: Tensor | None = None
        self._scores: list[Tensor] = []

    @property
    def latent(self) -> Tensor:
        """u with shape (B, *event)."""
        if self._latent is None:
            x = self.x
            for layer in self._layers:
                self._inputs.append(x)
                x = layer(x)
            self._latent = x
        return self._latent

    @property
    def energy(self) -> Tensor:
        """E(x) in nats with shape (B,), with no log-determinant of a linear layer."""
        if self._energy is None:
            if self._latent is None:
                log_dets = self._values_and_log_dets()
            elif self._known:
                log_dets = [at.log_det() for at in self._known]
            else:
                log_dets = list(self._log_dets_again())
            self._energy = self._base_at.energy - sum(log_dets)
        return self._energy

    @property
    def score(self) -> Tensor:
        """∇ₓ log p(x) with shape (B, *event)."""
        return self.scores[-1]

    @property
    def scores(self) -> list[Tensor]:
        """The scores over u, x_{L−1}, …, x, by 2 L GEMMs and no autograd."""
        if not self._scores:
            linearizations = self.linearizations
            self._scores = [self._base_at.score]
            for at in reversed(linearizations):
                self._scores.append(at.pullback(self._scores[-1]))
        return self._scores

    @property
    def linearizations(self) -> list[Linearization]:
        """The layers at their inputs."""
        if not self._known and self._layers:
            x = self.x
            for layer in self._layers:
                self._known.append(layer.linearize(x, training=self._training))
                x = self._known[-1].y
            self._latent = x
        return self._known

    def curvature(self, v: Tensor) -> Tensor:
        """Returns v·∇s·v with shape (K, B), by one tangent sweep of L GEMMs for each slice."""
        linearizations, tangents = self.linearizations, [v]
        for at in linearizations:
            tangents.append(at.tangent(tangents[-1]))
        last = tangents.pop()
        bends = (
            at.curvature(v, s)
            for at, v, s in zip(linearizations, tangents, self.scores[-2::-1], strict=True)
        )
        return sum(bends, start=self._base_at.curvature(last))

    def directional(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns v·s and v·∇s·v by one forward sweep of jets; ``v`` as (K, B, *event) or as x."""
        jet, slope, bend, inputs = Jet(self.x, v, None), 0.0, 0.0, []
        for layer in self._layers:
            inputs.append(jet.x)
            jet, first, second = layer.jet(jet)
            slope, bend = slope + first, bend + second
        if self._latent is None:
            self._latent, self._inputs = jet.x, inputs
        base, (u, w, a) = self._base_at, jet
        bend = bend + (base.curvature(w) if w.ndim > u.ndim else base.curvature(w[None])[0])
        if a is not None:
            bend = bend + sum_event(base.score * a, u)
        return slope + sum_event(base.score * w, u), bend

    def laplacian(self) -> Tensor:
        """Returns tr ∇s with shape (B,), in closed form or by D tangent sweeps."""
        found = self._closed_laplacian() if isinstance(self._base, StandardNormal) else None
        return super().laplacian() if found is None else found

    @property
    def _base_at(self) -> Evaluation:
        if self._at_base is None:
            self._at_base = self._base.at(self.latent)
        return self._at_base

    def _values_and_log_dets(self) -> list[Tensor]:
        x, log_dets = self.x, []
        for layer in self._layers:
            if layer.constant_jacobian:
                x = layer(x)
            else:
                x, log_det = layer.forward_and_log_det(x)
                log_dets.append(log_det)
        self._latent = x
        return log_dets

    def _log_dets_again(self) -> Iterator[Tensor]:
        """The activations' log-determinants behind a sweep that had none; no GEMM."""
        for layer, x in zip(self._layers, self._inputs, strict=True):
            if not layer.constant_jacobian:
                yield layer.forward_and_log_det(x)[1]

    def _closed_laplacian(self) -> Tensor | None:
        """Returns tr ∇s with shape (B,) if the chain has the closed form, and None if not."""
        layers, x = self._layers, self.x
        if not len(x):
            return x.new_zeros(0)
        bent = [index for index, layer in enumerate(layers) if not layer.constant_jacobian]
        if not bent:
            return -_columns(layers, x[0]).square().sum().expand(len(x))
        index = bent[0]
        at = self.linearizations[index]
        parts = at.diagonal(self.scores[len(layers) - 1 - index])
        if len(bent) > 1 or parts is None:
            return None
        slope, bend = (part.flatten(1) for part in parts)
        before = _Gram.apply(*as_autocast(_columns(layers[:index], x[0]).mT))
        behind = _Gram.apply(*as_autocast(_columns(layers[index + 1 :], at.y[0])))
        spread = (slope @ (before * behind) * slope).sum(1)
        return (bend * before.diagonal()).sum(1) - spread


class FlowDistribution(Distribution, LogDensity):
    """Creates the density of a flow given a context: a distribution of PyTorch's kind.

    Its batch shape is that of the context, ``()`` without one; values broadcast with it as those
    of any distribution do. ``at`` is the one method that takes rows alone: (R B, *event), R of
    them for every row of the context.

    Arguments:
        flow: The flow.
        context: c with shape (*batch, C); None of a flow without.

    Raises:
        ValueError: if the context has another size than the flow's, or the flow has none; a flow
            with one raises where it is evaluated without.
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = True

    def __init__(self, flow: "Flow", context: Tensor | None = None) -> None:
        self.flow, self.context = flow, flow.checked_context(context)
        batch = () if self.context is None else self.context.shape[:-1]
        super().__init__(torch.Size(batch), torch.Size(flow.event_shape), validate_args=False)
        self.layers, self.base = list(flow.layers), flow.base
        if self.context is not None:
            rows = flow.standardised(self.context).reshape(-1, flow.context)
            self.layers = [layer.given(rows) for layer in self.layers]
            self.base = self.base.conditioned(rows)

    @property
    def support(self) -> constraints.Constraint:
        """All of space."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "FlowDistribution":
        """Returns the distribution, and its context, with this batch shape."""
        context = None if self.context is None else self.context.expand(*batch_shape, -1)
        wider = FlowDistribution(self.flow, context)
        wider._batch_shape = torch.Size(batch_shape)
        return wider

    def at(self, x: Tensor, *, training: bool = False) -> FlowEvaluation:
        """Returns the flow at rows ``x``, for several questions about the same points."""
        return FlowEvaluation(self.layers, self.base, x, training=training)

    def energy(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Returns E(x) in nats with shape (*batch,)."""
        at, batch = self._rows(x, generator)
        return at.energy.reshape(batch)

    def log_prob(self, value: Tensor, generator: Generator | None = None) -> Tensor:
        """Returns the exact log-density of raw data in nats, with shape (*batch,).

        Integer data behind dequantisation are completed by uniform noise from ``generator``;
        without one the noise is the same at every call, a function of a row's place in the
        batch. A row with any value that is no integer counts as completed already.
        """
        with fixed_weights(self.flow):
            return -self.energy(value, generator) - self.log_normalizer()

    def log_normalizer(self) -> Tensor:
        """Returns log Z in nats, a scalar: O(D³ L), kept until weights change, without grad."""
        return self.flow.log_normalizer()

    def relative_energy(self, x: Tensor) -> Tensor:
        """Returns E(x) whose backward gives relative gradients, log-determinants included."""
        total: Tensor | float = 0.0
        for layer in self.layers:
            step = layer.relative if layer.constant_jacobian else layer.forward_and_log_det
            x, log_det = step(x)
            total = total + log_det
        return self.base.energy(x) - total

    def score(self, x: Tensor) -> Tensor:
        """Returns ∇ₓ log p with the shape of ``x``: 2 L GEMMs, differentiable, no autograd."""
        at, batch = self._rows(x)
        return at.score.reshape(*batch, *self.event_shape)

    def directional(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Returns v·s and v·∇s·v by one second-order Taylor sweep.

        Arguments:
            x: The points, with shape (*batch, *event).
            v: The directions, with the shape of ``x`` or one more dimension in front, K; results
                have shape (*batch,) or (K, *batch).
        """
        at, batch = self._rows(x)
        leading = v.shape[: v.ndim - x.ndim]
        v = v.expand(*leading, *batch, *x.shape[x.ndim - len(self.event_shape) :])
        found = at.directional(v.reshape(*leading, *at.x.shape))
        return tuple(part.reshape(*leading, *batch) for part in found)

    def to_latent(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Returns the latent u with shape (*batch, *latent)."""
        at, batch = self._rows(x, generator)
        u = at.latent
        return u.reshape(*batch, *u.shape[1:])

    def from_latent(self, u: Tensor) -> Tensor:
        """Returns the raw data x with latent ``u``; integers where the data are integers."""
        u = u if isinstance(u, Tensor) else torch.as_tensor(u).to(self.flow.like)
        batch = self._broadcast(u.shape[: u.ndim - len(self.flow.latent_shape)])
        x = u.expand(*batch, *self.flow.latent_shape).reshape(-1, *self.flow.latent_shape)
        for layer in reversed(self._over(batch).layers):
            x = layer.inverse(x)
        return x.reshape(*batch, *self.event_shape)

    def rsample(self, sample_shape: Shape = (), generator: Generator | None = None) -> Tensor:
        """Returns exact samples with shape (*sample_shape, *batch, *event), differentiable.

        O(D²) each once the linear layers are factorised.
        """
        batch = (*_shape(sample_shape), *self.batch_shape)
        shape = (math.prod(batch), *self.flow.latent_shape)
        u = self.base.draw(shape, self.flow.like, generator)
        return self.from_latent(u.reshape(*batch, *self.flow.latent_shape))

    def sample(self, sample_shape: Shape = (), generator: Generator | None = None) -> Tensor:
        """Returns exact samples without gradients, as ``rsample``.

        Raises:
            ValueError: if the context is not finite.
        """
        self._check_context()
        with torch.no_grad(), fixed_weights(self.flow):
            return self.rsample(sample_shape, generator)

    def sample_and_log_prob(
        self, sample_shape: Shape = (), generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns samples and their log-densities, without gradients.

        Of integer data the log-density is that of the completed sample, before it is rounded.

        Raises:
            ValueError: if the context is not finite.
        """
        self._check_context()
        batch = (*_shape(sample_shape), *self.batch_shape)
        shape = (math.prod(batch), *self.flow.latent_shape)
        with torch.no_grad(), fixed_weights(self.flow):
            x = self.base.draw(shape, self.flow.like, generator)
            log_p = self.base.log_prob(x) - self.log_normalizer()
            for layer in reversed(self.layers):
                if layer.constant_jacobian:
                    x = layer.inverse(x)
                else:
                    x, log_det = layer.inverse_and_log_det(x)
                    log_p = log_p + log_det
        return x.reshape(*batch, *self.event_shape), log_p.reshape(batch)

    def _check_context(self) -> None:
        if self.context is not None and not (finite := self.context.isfinite()).all():
            found, place = self.context[~finite][0].item(), (~finite).nonzero()[0].tolist()
            raise ValueError(f"context: found {found} at {place}, expected finite numbers")

    def _rows(
        self, x: Tensor, generator: Generator | None = None
    ) -> tuple[FlowEvaluation, tuple[int, ...]]:
        """Returns the flow at ``x``, as completed rows in its type, and their batch shape."""
        if isinstance(generator, Tensor):
            raise TypeError(
                "generator: found a tensor; expected a context by flow(c), or context=c"
            )
        x = self.flow.as_events(x)
        batch = self._broadcast(x.shape[: x.ndim - len(self.event_shape)])
        rows = x.expand(*batch, *self.event_shape).reshape(-1, *self.event_shape)
        return self._over(batch).at(self.flow.completed(rows, generator)), batch

    def _over(self, batch: tuple[int, ...]) -> "FlowDistribution":
        """Returns the distribution whose context's rows are those of a batch, in turn."""
        own = len(self.batch_shape)
        ends = batch[len(batch) - own :] == tuple(self.batch_shape)
        return self if self.context is None or ends else self.expand(batch)

    def _broadcast(self, shape: Sequence[int]) -> tuple[int, ...]:
        if not self.batch_shape:  # of most flows: PyTorch's function imports its compiler
            return tuple(shape)
        return tuple(torch.broadcast_shapes(tuple(shape), self.batch_shape))


def _shape(shape: Shape) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _columns(layers: Sequence[ConstantJacobian], event: Tensor) -> Tensor:
    """Returns the columns of the layers' Jacobian as rows, flattened: Jᵀ with shape (D, D)."""
    if not layers:
        return units(event).flatten(1)
    columns = layers[0].columns(event)
    for layer in layers[1:]:
        columns = layer.linear(columns)
    return columns.flatten(1)


class _Gram(torch.autograd.Function):
    """R ↦ R Rᵀ, whose gradient is one product instead of the two of a general one."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(rows)
        return rows @ rows.mT

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ANN401
        (rows,) = ctx.saved_tensors
        return (grad + grad.mT) @ rows
