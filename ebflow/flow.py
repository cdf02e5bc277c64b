r"""Normalizing flows: layers from data to latent, a base, and a context if there is one.

Layers :math:`f_1 \dots f_L` carry data :math:`x` to the latent :math:`u`, whose base density is
:math:`p_0`. With :math:`\psi_i = \log |\det J_i|`, and :math:`\mathcal{C}` the layers whose
Jacobian does not depend on the input,

.. math::
    \log p(x) = \underbrace{\log p_0(u)
        + \sum_{i \notin \mathcal{C}} \psi_i(x_{i-1})}_{-E(x)}
        + \underbrace{\sum_{i \in \mathcal{C}} \psi_i}_{-\log Z}.

``flow(c)`` is the density given a context; a flow's own methods are those of ``flow(context)``.
Leading layers may be *preprocessing* (dequantization, logit, whitening). ``log_prob`` counts them,
so it is a density of raw data; ``core`` is the flow behind the cut, where scores are matched.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267.
"""

__all__ = ["Flow", "FlowDistribution", "History"]

import copy
import math
import numbers
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from .bases import Base, StandardNormal
from .bijections import Bijection, Dequantize, Reshape
from .bijections.weighted import fixed_weights
from .data import called, titles
from .data.memory import as_contexts, as_frame, as_rows
from .density import FlowEvaluation, LogDensity
from .randomness import Generator, RowGenerator

Shape = int | Sequence[int]


class History(list[dict[str, Any]]):
    """What a training told, a row an event, as pandas takes it.

    A row has ``step``, ``kind`` (``log`` or ``validate``) and metrics by name, in nats and
    seconds.
    """

    def plot(self, axes: object = None) -> object:
        """Draws the training and the validation NLL over the steps; returns matplotlib's axes.

        Raises:
            ValueError: if there is nothing to draw.
        """
        import matplotlib.pyplot as plt

        if not self:
            raise ValueError(
                "history: found no row, expected those of a training: ebflow.fit writes them, and "
                "a flow that was loaded has none"
            )
        axes = plt.subplots()[1] if axes is None else axes
        for name, label in (("train/nll", "training NLL"), ("val/nll", "validation NLL")):
            rows = [(row["step"], row[name]) for row in self if name in row]
            axes.plot(*zip(*rows, strict=True), label=label, marker=".")
        axes.set(xlabel="step", ylabel="nats")
        axes.legend()
        return axes


class Flow(nn.Module, LogDensity):
    """Creates a flow.

    Values of its methods have any leading dimensions: x has shape (*batch, *event), and a row
    (*batch, D) is taken for an image, an image for a row, where that is unambiguous.

    Arguments:
        event_shape: The shape of one example of raw data.
        layers: The bijections, from data to latent.
        base: The density of latents; None: N(0, I).
        cut: The number of leading layers that are preprocessing, in front of ``core``.
        context: The number C of elements of a context; 0: there is none.
        spec: How to build the same flow again, JSON-able; written into checkpoints.

    Example:
        >>> from ebflow.bijections import Dense, MonotoneSpline
        >>> layers = [Dense(torch.eye(3), torch.zeros(3)), MonotoneSpline((3,))]
        >>> flow = ebflow.Flow((3,), layers)
        >>> flow.log_prob(x).shape, flow.score(x).shape, flow.sample((2, 5)).shape
        (torch.Size([60]), torch.Size([60, 3]), torch.Size([2, 5, 3]))
        >>> flow().event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        layers: Sequence[Bijection],
        *,
        base: Base | None = None,
        cut: int = 0,
        context: int = 0,
        spec: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= cut <= len(layers):
            raise ValueError(f"cut: found {cut}, expected 0 … {len(layers)}")
        self.event_shape = tuple(event_shape)
        self.layers = nn.ModuleList(layers)
        self.base = StandardNormal() if base is None else base
        self.cut, self.context, self.spec = cut, context, spec
        self.latent_shape = self._shape_at(len(layers))
        self.columns: dict[str, Any] | None = None
        self.history = History()
        if not any(True for _ in self._reals()):
            self.placeholder = nn.Buffer(torch.zeros(()), persistent=False)
        if context:
            self.context_mean = nn.Buffer(self.like.new_zeros(context))
            self.context_scale = nn.Buffer(self.like.new_ones(context))

    def forward(self, context: Tensor | None = None) -> "FlowDistribution":
        """Returns the density given a context with shape (*batch, C): a ``Distribution``.

        Columns of a frame or a dictionary are found by their names, and categories are one-hot
        then; a context of one column may be a number, a list of them, or a Series.
        """
        return FlowDistribution(self, context)

    def at(
        self, x: Tensor, *, training: bool = False, context: Tensor | None = None
    ) -> FlowEvaluation:
        """Returns the flow at rows of completed data; energy, score and curvature share sweeps."""
        return self(context).at(x, training=training)

    def energy(
        self, x: Tensor, generator: Generator | None = None, *, context: Tensor | None = None
    ) -> Tensor:
        """Returns E(x) in nats with shape (*batch,); L GEMMs, no log-det of a linear layer."""
        return self(self.given(x, context)).energy(x, generator)

    def log_normalizer(self) -> Tensor:
        """Returns log Z in nats, a scalar: O(D³ L), kept until weights change, without grad."""
        layers = (layer for layer in self.layers if layer.constant_jacobian)
        return -sum((layer.log_det() for layer in layers), start=self.like.new_zeros(()))

    def log_prob(
        self, x: Tensor, generator: Generator | None = None, *, context: Tensor | None = None
    ) -> Tensor:
        """Returns the exact log-density of raw data in nats, with shape (*batch,).

        A frame's columns are found by their names, those of a context too unless one is given;
        an array's are taken in order. See ``FlowDistribution.log_prob`` on integer data.

        Raises:
            ValueError: if a column or a context is missing, as one whose columns have no names,
                or a category is no level of the training rows.
        """
        return self(self.given(x, context)).log_prob(x, generator)

    def relative_energy(self, x: Tensor) -> Tensor:
        """Returns E(x) whose backward gives relative gradients, log-determinants included."""
        return self().relative_energy(x)

    def score(self, x: Tensor, *, context: Tensor | None = None) -> Tensor:
        """Returns ∇ₓ log p with the shape of ``x``: 2 L GEMMs, differentiable, no autograd."""
        return self(self.given(x, context)).score(x)

    def directional(
        self, x: Tensor, v: Tensor, *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns v·s and v·∇s·v by one second-order Taylor sweep; ``v`` as x or (K, *x)."""
        return self(context).directional(x, v)

    def to_latent(
        self, x: Tensor, generator: Generator | None = None, *, context: Tensor | None = None
    ) -> Tensor:
        """Returns the latent u with shape (*batch, *latent)."""
        return self(self.given(x, context)).to_latent(x, generator)

    def from_latent(self, u: Tensor, *, context: Tensor | None = None) -> Tensor:
        """Returns the raw data x with latent ``u``; integers where the data are integers."""
        return self(context).from_latent(u)

    def sample(
        self,
        shape: Shape = (),
        generator: Generator | None = None,
        *,
        context: Tensor | None = None,
    ) -> Tensor:
        """Returns exact samples with shape (*shape, *batch, *event), ``shape`` an int or a tuple.

        O(D²) each once the linear layers are factorized.
        """
        return self(context).sample(shape, generator)

    def sample_and_log_prob(
        self,
        shape: Shape = (),
        generator: Generator | None = None,
        *,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns samples and their log-densities."""
        return self(context).sample_and_log_prob(shape, generator)

    @property
    def core(self) -> "Flow":
        """The flow behind the cut, sharing its layers."""
        return self.without(self.cut)

    def without(self, count: int) -> "Flow":
        """Returns the flow behind its first ``count`` layers, sharing the others."""
        return self._with(self._shape_at(count), list(self.layers)[count:], cut=0)

    def replaced(self, tail: "Flow") -> "Flow":
        """Returns this flow with another one in the place of ``core``."""
        return tail._with(self.event_shape, [*self.layers[: self.cut], *tail.layers], cut=self.cut)

    def preprocessed(
        self,
        chain: Iterable[Bijection],
        *,
        shape: Sequence[int] | None = None,
        match_after: bool = True,
    ) -> "Flow":
        """Returns this flow behind ``chain``, sharing its layers.

        Arguments:
            chain: The preprocessing, from raw data, in rows, to rows of this flow's events;
                copied.
            shape: The shape of an event of the result; None: rows, (D,).
            match_after: Whether scores are matched behind the whole chain (MaP); otherwise
                only dequantization stands before the cut.
        """
        rows = (math.prod(self.event_shape),)
        shape = rows if shape is None else tuple(shape)
        layers = [copy.deepcopy(layer).to(self.like) for layer in chain]
        if shape != rows:
            leading = len(list(takewhile(lambda layer: layer.pixelwise, layers)))
            layers.insert(leading, Reshape(shape, rows))
        if rows != self.event_shape:
            layers.append(Reshape(rows, self.event_shape))
        dequantized = bool(layers) and isinstance(layers[0], Dequantize)
        cut = len(layers) if match_after else int(dequantized)
        spec = {"preprocessing": getattr(chain, "spec", None), "match_after": match_after,
                "event_shape": list(shape)}  # fmt: skip
        result = self._with(shape, [*layers, *self.layers], cut=cut).to(self.like)
        result.spec = {**(self.spec or {}), **spec}
        return result

    @property
    def like(self) -> Tensor:
        """A zero of the type and on the device of the flow's first tensor of reals."""
        first = next(self._reals())
        return torch.zeros((), dtype=first.dtype, device=first.device)

    def _reals(self) -> Iterator[Tensor]:
        for tensors in (self.parameters(), self.buffers()):
            yield from (t for t in tensors if t.is_floating_point())

    @property
    def batch_shape(self) -> torch.Size:
        """That of ``flow()``."""
        return torch.Size()

    @property
    def initialized(self) -> bool:
        """Whether every layer has what it takes from data."""
        return all(layer.initialized for layer in self.layers)

    @torch.no_grad()
    def initialize(
        self, x: Tensor, generator: Generator | None = None, *, context: Tensor | None = None
    ) -> None:
        """Lets layers such as ``ActNorm`` take what they need from one batch of raw data.

        In order, each from what the layers before it make of ``x``. Layers that have it, from
        an earlier call or a checkpoint, keep it. Until then they are the identity.
        """
        density = self(context)
        x = density._rows(x, generator)[0].x
        for layer in density.layers:
            if not layer.initialized:
                layer.initialize(x)
            x = layer(x)

    def standardize_context(self, mean: Tensor, deviation: Tensor) -> None:
        """Lets contexts be standardized by their mean and deviation, with shape (C,)."""
        mean, deviation = (t.to(self.like.device, torch.float64) for t in (mean, deviation))
        self.context_mean.copy_(mean)
        # Around the mean as it is held, which may be far from 0 in its own deviations.
        spread = torch.hypot(deviation, mean - self.context_mean)
        self.context_scale.copy_(torch.where(spread > 0, 1 / spread, 1.0))

    def standardized(self, context: Tensor) -> Tensor:
        """Returns contexts as the layers see them."""
        return ((context - self.context_mean) * self.context_scale).to(self.like)

    def preprocess(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Returns rows ``x`` of raw data carried through the preprocessing in front of the cut."""
        x = self.completed(self.as_events(x), generator)
        for layer in list(self.layers)[: self.cut]:
            x = layer(x)
        return x

    def completed(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Returns rows in the flow's type; integers behind dequantization with their noise."""
        if len(self.layers) and isinstance(self.layers[0], Dequantize):
            noise = RowGenerator(0, "dequantize", 0) if generator is None else generator
            return self.layers[0].dequantize(x, self.like, noise)
        return x.to(self.like)

    def as_events(self, x: Tensor) -> Tensor:
        """Returns ``x``, a tensor, an array or a frame, with shape (*batch, *event).

        A Series is one column of a flow of one, and one row of others.

        Raises:
            ValueError: if its last dimensions are neither an event nor, in one way, as many
                elements: rows of an image, or images of rows; at a number of an array or a frame
                that the flow's type does not have.
        """
        event, size = self.event_shape, math.prod(self.event_shape)
        if not isinstance(x, Tensor):
            x = as_rows(as_frame(x, size), self.columns or {})
            self._check_range(x)
        if x.ndim >= len(event) and tuple(x.shape[x.ndim - len(event) :]) == event:
            return x
        starts = [k for k in range(1, x.ndim) if math.prod(x.shape[k:]) == size]
        if len(starts) == 1 and (len(event) == 1 or x.ndim - starts[0] == 1):
            return x.reshape(*x.shape[: starts[0]], *event)
        expected = ", ".join(map(str, event))
        raise ValueError(f"x: found shape {tuple(x.shape)}, expected (*, {expected})")

    def _check_range(self, x: Tensor) -> None:
        """Raises ValueError at the first finite number that is infinite in the flow's type."""
        beyond = (x.isfinite() & x.to(self.like.dtype).isinf()).flatten().nonzero()
        if len(beyond):
            row, feature = divmod(int(beyond[0]), math.prod(self.event_shape))
            known = self.columns or {}
            names = known.get("names") or ()
            names = titles(names, known.get("categories") or [None] * len(names))
            raise ValueError(
                f"x, row {row}, {called(feature, names)}: found {x.flatten()[beyond[0]].item()}, "
                f"expected a number of {self.like.dtype}: flow.double() takes larger ones"
            )

    def given(self, x: Tensor, context: Tensor | None) -> Tensor | None:
        """Returns the context of rows: of a frame its own columns, unless one is given.

        Only where columns go by names are those of rows told from those of contexts.
        """
        known = self.columns or {}
        named = (known.get("names") or known.get("column")) and known.get("context")
        return x if context is None and named and hasattr(x, "columns") else context

    def checked_context(self, context: Tensor | None) -> Tensor | None:
        """Returns a context on the flow's device; of one element, with or without its dimension.

        Raises:
            ValueError: if the flow has none, or one of another size; at what is no level.
        """
        if context is None:
            return None
        if not isinstance(context, Tensor):
            context = as_contexts(context, self.columns or {}, self.context)
        if self.context == 1 and context.shape[-1:] != (1,):
            context = context.unsqueeze(-1)
        found = tuple(context.shape)
        if not self.context:
            raise ValueError(f"context: found shape {found}, expected None")
        if found[-1:] != (self.context,):
            raise ValueError(f"context: found shape {found}, expected (*, {self.context})")
        return context.to(self.like.device)

    def _with(self, shape: Sequence[int], layers: Sequence[Bijection], *, cut: int) -> "Flow":
        """Returns a flow of other layers, sharing the base and what is known of contexts."""
        flow = Flow(shape, layers, base=self.base, cut=cut, context=self.context).to(self.like)
        if self.context:
            flow.context_mean, flow.context_scale = self.context_mean, self.context_scale
        return flow

    def _shape_at(self, index: int) -> tuple[int, ...]:
        shape = self.event_shape
        for layer in list(self.layers)[:index]:
            shape = getattr(layer, "target", shape)
        return shape


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

    def __init__(self, flow: Flow, context: Tensor | None = None) -> None:
        self.flow, self.context = flow, flow.checked_context(context)
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

        Integer data behind dequantization are completed by uniform noise from ``generator``;
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
