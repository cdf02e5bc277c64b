"""The density of a flow given a context, as a distribution of PyTorch."""

__all__ = ["FlowDistribution", "Shape"]

import math
import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from .bijections.weighted import fixed_weights
from .density import FlowEvaluation, LogDensity
from .randomness import Generator

if TYPE_CHECKING:
    from .flow import Flow

Shape = int | Sequence[int]
"""The shape of samples."""


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
        self.flow, self.context = flow, flow.as_context(context)
        batch = () if self.context is None else self.context.shape[:-1]
        super().__init__(torch.Size(batch), torch.Size(flow.event_shape), validate_args=False)
        self.layers, self.base = list(flow.layers), flow.base
        if self.context is not None:
            rows = flow.standardized(self.context).reshape(-1, flow.context)
            self.layers = [layer.condition(rows) for layer in self.layers]
            self.base = self.base.condition(rows)

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

        Dequantized values get uniform noise from ``generator``. By default the noise is a
        function of the row's values, so the result does not depend on batch or order. Values
        that are not on their grid are used as they are.
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
        """Returns v·s and v·∇s·v by the score chain.

        Arguments:
            x: The points, with shape (*batch, *event).
            v: The directions, with the shape of ``x`` or one more dimension in front, K; results
                have shape (*batch,) or (K, *batch).
        """
        at, batch = self._rows(x)
        leading = v.shape[: v.ndim - x.ndim]
        v = v.expand(*leading, *batch, *x.shape[x.ndim - len(self.event_shape) :])
        found = at.directional(v.reshape(math.prod(leading), *at.x.shape))
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

        O(D²) each once the linear layers are factorized.
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
    sizes = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    if not all(isinstance(size, numbers.Integral) and size >= 0 for size in sizes):
        raise ValueError(
            f"shape: found {shape!r}, expected a whole number from 0, or a tuple of them"
        )
    return tuple(map(int, sizes))
