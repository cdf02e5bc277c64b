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

__all__ = ["Flow", "FlowDistribution"]

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from .bases import Base, StandardNormal
from .bijections import Bijection, Dequantize, Reshape
from .data.memory import ArrayLike
from .density import FlowEvaluation, LogDensity
from .distribution import FlowDistribution, Shape
from .history import History
from .randomness import ContentGenerator, Generator
from .tables.adapter import as_context, as_events, context_of


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
        return self(self.context_of(x, context)).energy(x, generator)

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
        return self(self.context_of(x, context)).log_prob(x, generator)

    def relative_energy(self, x: Tensor) -> Tensor:
        """Returns E(x) whose backward gives relative gradients, log-determinants included."""
        return self().relative_energy(x)

    def score(self, x: Tensor, *, context: Tensor | None = None) -> Tensor:
        """Returns ∇ₓ log p with the shape of ``x``: 2 L GEMMs, differentiable, no autograd."""
        return self(self.context_of(x, context)).score(x)

    def directional(
        self, x: Tensor, v: Tensor, *, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns v·s and v·∇s·v by the score chain; ``v`` as x or (K, *x)."""
        return self(context).directional(x, v)

    def to_latent(
        self, x: Tensor, generator: Generator | None = None, *, context: Tensor | None = None
    ) -> Tensor:
        """Returns the latent u with shape (*batch, *latent)."""
        return self(self.context_of(x, context)).to_latent(x, generator)

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
            return self.layers[0].dequantize(x, self.like, generator or ContentGenerator())
        return x.to(self.like)

    def as_events(self, x: ArrayLike) -> Tensor:
        """Returns ``x``, a tensor, an array or a frame, with shape (*batch, *event).

        Raises:
            ValueError: if the shape is wrong, or a number is too large for the flow's dtype.
        """
        return as_events(x, self.event_shape, self.columns, self.like.dtype)

    def context_of(self, x: ArrayLike, context: ArrayLike | None) -> ArrayLike | None:
        """Returns the context of rows: by default a frame's own columns of that name."""
        return context_of(x, context, self.columns)

    def as_context(self, context: ArrayLike | None) -> Tensor | None:
        """Returns a context on the flow's device, with shape (*batch, C).

        Raises:
            ValueError: if the flow has no context, or one of another size.
        """
        context = as_context(context, self.context, self.columns)
        return None if context is None else context.to(self.like.device)

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
