r"""Normalizing flows: bijections from data to latent, a base density and, optionally, a context.

Layers :math:`f_1 \dots f_L` map data :math:`x` to the latent :math:`u` with base density
:math:`p_0`. Let :math:`\psi_i = \log |\det J_i|`. Let :math:`\mathcal{C}` be the layers whose
Jacobian does not depend on the input. Then

.. math::
    \log p(x) = \underbrace{\log p_0(u)
        + \sum_{i \notin \mathcal{C}} \psi_i(x_{i-1})}_{-E(x)}
        + \underbrace{\sum_{i \in \mathcal{C}} \psi_i}_{-\log Z}.

``flow(c)`` is the density given a context c, a ``torch.distributions.Distribution``.
``flow.log_prob(x, context=c)`` and the other methods of a flow are short forms of
``flow(c).log_prob(x)``.

The first layers may be *preprocessing*: dequantization, a logit, whitening. ``log_prob`` includes
their log-determinants, so it is a density of raw data. The other layers are the ``core``, the
part that is trained.

Source: Training Energy-Based Normalizing Flow with Score-Matching Objectives (Chao, Sun, Hsu,
Kira, Lee, 2023), arXiv:2305.15267.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .bases import Base, StandardNormal
from .bijections import Bijection, Cells, Dequantizer, Reshape
from .density import FlowEvaluation, LogDensity
from .distribution import FlowDistribution, Shape
from .history import History, Report
from .randomness import ContentGenerator, Generator
from .randomness import generator as derive
from .tables import ArrayLike, Columns
from .tables.adapter import as_context, as_events, context_of

if TYPE_CHECKING:
    from .explanation import Explanation

CONSTANT = 1e-10  # Standard deviation of a constant column of contexts, relative to the mean


class Flow(nn.Module, LogDensity):
    """A normalizing flow.

    Methods take ``x`` with shape (*batch, *event), as tensors, arrays or frames. A flow of images
    also takes rows of as many elements, and a flow of rows takes images, if that is unambiguous.

    Arguments:
        event_shape: The shape of one example of raw data.
        layers: The bijections, from data to latent.
        base: The density of latents; None: N(0, I).
        n_preprocessing: The number of leading layers that are preprocessing.
        context: The number C of elements of a context; 0: the flow has no context.
        spec: JSON-able description from which ``ebflow.load`` rebuilds the flow.

    Example:
        >>> from ebflow.bijections import Dense, MonotoneSpline
        >>> layers = [Dense(torch.eye(3), torch.zeros(3)), MonotoneSpline((3,))]
        >>> flow = ebflow.Flow((3,), layers)
        >>> flow.log_prob(x).shape, flow.score(x).shape, flow.sample((2, 5)).shape
        (torch.Size([60]), torch.Size([60, 3]), torch.Size([2, 5, 3]))
        >>> flow().event_shape
        torch.Size([3])
    """

    batch_shape = torch.Size()  # That of ``flow()``

    def __init__(
        self,
        event_shape: Sequence[int],
        layers: Sequence[Bijection],
        *,
        base: Base | None = None,
        n_preprocessing: int = 0,
        context: int = 0,
        spec: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= n_preprocessing <= len(layers):
            raise ValueError(
                f"n_preprocessing: found {n_preprocessing}, expected 0 … {len(layers)}"
            )
        self.event_shape = tuple(event_shape)
        self.layers = nn.ModuleList(layers)
        self.base = StandardNormal() if base is None else base
        self.n_preprocessing, self.context, self.spec = n_preprocessing, context, spec
        self.latent_shape = self._shape_after(len(layers))
        self.columns: Columns | None = None
        self.history = History()
        self.report: Report | None = None
        if not any(True for _ in self._float_tensors()):
            self.placeholder = nn.Buffer(torch.zeros(()), persistent=False)
        if context:
            self.context_mean = nn.Buffer(self._zero.new_zeros(context))
            self.context_scale = nn.Buffer(self._zero.new_ones(context))

    def forward(self, context: ArrayLike = None) -> FlowDistribution:
        """Returns the density given a context with shape (*batch, C).

        A frame or a dictionary has to have the context's columns. A context of one column may be
        a number, a list of numbers or a Series.
        """
        return FlowDistribution(self, context)

    # The methods of the density given ``context``.

    def at(self, x: Tensor, *, context: ArrayLike = None) -> FlowEvaluation:
        """Returns the evaluation at dequantized rows, which shares work between its values."""
        return self(context).at(x)

    def energy(
        self, x: ArrayLike, *, context: ArrayLike = None, generator: Generator | None = None
    ) -> Tensor:
        """Returns E(x) in nats with shape (*batch,); L GEMMs, no log-det of a linear layer."""
        return self(self.context_of(x, context)).energy(x, generator=generator)

    def log_normalizer(self) -> Tensor:
        """Returns log Z in nats, a scalar: O(D³ L), cached until weights change, without grad."""
        layers = (layer for layer in self.layers if layer.constant_jacobian)
        return -sum((layer.log_det() for layer in layers), start=self._zero)

    def log_prob(
        self, x: ArrayLike, *, context: ArrayLike = None, generator: Generator | None = None
    ) -> Tensor:
        """Returns the log-density of raw data in nats, (*batch,), as ``FlowDistribution`` does."""
        return self(self.context_of(x, context)).log_prob(x, generator=generator)

    def log_prob_and_error(
        self, x: ArrayLike, *, context: ArrayLike = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns log p of the observed values of rows, and standard errors, (*batch,) each."""
        return self(self.context_of(x, context)).log_prob_and_error(x, generator=generator)

    def score(self, x: ArrayLike, *, context: ArrayLike = None) -> Tensor:
        """Returns ∇ₓ log p with the shape of ``x``: 2 L GEMMs, differentiable, no autograd.

        The method ``score`` of ``ebflow.sklearn.FlowDensity`` is the mean log-density.
        """
        return self(self.context_of(x, context)).score(x)

    def to_latent(
        self, x: ArrayLike, *, context: ArrayLike = None, generator: Generator | None = None
    ) -> Tensor:
        """Returns the latent u with shape (*batch, *latent)."""
        return self(self.context_of(x, context)).to_latent(x, generator=generator)

    def from_latent(self, u: ArrayLike, *, context: ArrayLike = None) -> Tensor:
        """Returns the raw data x with latent ``u``; dequantized columns are rounded again."""
        return self(context).from_latent(u)

    def sample(
        self, shape: Shape = (), *, context: ArrayLike = None, generator: Generator | None = None
    ) -> ArrayLike:
        """Returns exact samples, without missing values; ``shape`` is an int or a tuple.

        A flow of a frame returns a frame of the same library, names and types, one of an array an
        array (*shape, *batch, K), others a tensor (*shape, *batch, *event).
        """
        return self(context).sample(shape, generator=generator)

    def sample_and_log_prob(
        self, shape: Shape = (), *, context: ArrayLike = None, generator: Generator | None = None
    ) -> tuple[ArrayLike, Tensor]:
        """Returns samples, as ``sample``, and their log-densities."""
        return self(context).sample_and_log_prob(shape, generator=generator)

    def impute(
        self,
        x: ArrayLike,
        *,
        context: ArrayLike = None,
        samples: int = 1,
        generator: torch.Generator | None = None,
        sweeps: int = 5,
    ) -> ArrayLike | list[ArrayLike]:
        """Returns rows with their missing values sampled given the observed ones.

        A frame gives a frame, an array an array, a tensor a tensor. ``ebflow.imputation.impute``
        has the other arguments, and also reports how good the proposals of each row are.

        Arguments:
            samples: The number of completed copies; more than one are returned as a list.
            generator: The source of randomness; None: the same samples at every call.

        Raises:
            NonFinite: if no incomplete row has a finite density; if only some have, it warns.
        """
        from .imputation import impute

        noise = generator or derive(0, "impute", device=self.device)
        found = impute(self, x, context=context, generator=noise, samples=samples, sweeps=sweeps)
        found.check()
        copies = list(found.samples.unbind(1))
        if self.columns and not isinstance(x, Tensor):
            copies = [self.columns.fill(x, rows.double().cpu().numpy()) for rows in copies]
        return copies if samples > 1 else copies[0]

    def explain(
        self, x: ArrayLike, *, context: ArrayLike = None, samples: int = 4
    ) -> "Explanation":
        """Returns the conditional distribution of each column given the others, for all rows.

        Its p-values show which values of a row are unusual, given all others. Arguments, cost and
        errors are those of ``ebflow.explanation.explain``.
        """
        from .explanation import explain

        return explain(self, x, context=context, samples=samples)

    # Parts and extensions, which share layers with this flow.

    @property
    def core(self) -> "Flow":
        """The flow after the preprocessing."""
        return self.after(self.n_preprocessing)

    def after(self, count: int) -> "Flow":
        """Returns the flow after its first ``count`` layers."""
        return self._with_layers(self._shape_after(count), list(self.layers)[count:])

    def with_core(self, core: "Flow") -> "Flow":
        """Returns this flow's preprocessing followed by another core."""
        preprocessing = self.layers[: self.n_preprocessing]
        layers = [*preprocessing, *core.layers]
        return core._with_layers(self.event_shape, layers, n_preprocessing=len(preprocessing))

    def preprocessed(
        self,
        transforms: Iterable[Bijection],
        *,
        shape: Sequence[int] | None = None,
        match_after: bool = True,
    ) -> "Flow":
        """Returns this flow preceded by ``transforms``.

        Arguments:
            transforms: The preprocessing of rows of raw data; copied.
            shape: The shape of one example of raw data; None: (D,).
            match_after: True if all transforms are preprocessing, after which scores are matched
                (MaP); otherwise only dequantization is.
        """
        rows = (math.prod(self.event_shape),)
        shape = rows if shape is None else tuple(shape)
        layers = [copy.deepcopy(layer).to(self.device, self.dtype) for layer in transforms]
        if shape != rows:
            leading = len(list(takewhile(lambda layer: layer.pixelwise, layers)))
            layers.insert(leading, Reshape(shape, rows))
        if rows != self.event_shape:
            layers.append(Reshape(rows, self.event_shape))
        flow = self._with_layers(shape, [*layers, *self.layers], n_preprocessing=len(layers))
        if not match_after:
            flow.n_preprocessing = int(flow.dequantizer is not None)
        flow.spec = {**(self.spec or {}), "preprocessing": getattr(transforms, "spec", None),
                     "match_after": match_after, "event_shape": list(shape)}  # fmt: skip
        return flow

    def _with_layers(
        self, shape: Sequence[int], layers: Sequence[Bijection], *, n_preprocessing: int = 0
    ) -> "Flow":
        """Returns a flow of other layers with the base and the standardized context of this."""
        options = {"base": self.base, "n_preprocessing": n_preprocessing, "context": self.context}
        flow = Flow(shape, layers, **options).to(self.device, self.dtype)
        if self.context:
            flow.context_mean, flow.context_scale = self.context_mean, self.context_scale
        return flow

    def _shape_after(self, count: int) -> tuple[int, ...]:
        shape = self.event_shape
        for layer in list(self.layers)[:count]:
            shape = getattr(layer, "target", shape)
        return shape

    # The type of the flow, and what it does to data before the layers.

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the flow's parameters."""
        return next(self._float_tensors()).dtype

    @property
    def device(self) -> torch.device:
        """The device of the flow's parameters."""
        return next(self._float_tensors()).device

    @property
    def _zero(self) -> Tensor:
        return next(self._float_tensors()).new_zeros(())

    def _float_tensors(self) -> Iterator[Tensor]:
        """Yields parameters, then buffers; not those of cells, which are always in float64."""
        for kind in ("parameters", "buffers"):
            for module in (each for each in self.modules() if not isinstance(each, Cells)):
                tensors = getattr(module, kind)(recurse=False)
                yield from (t for t in tensors if t.is_floating_point())

    def as_events(self, x: ArrayLike) -> Tensor:
        """Returns ``x``, a tensor, an array or a frame, with shape (*batch, *event).

        Raises:
            ValueError: if the shape is wrong, or a number is too large for the flow's dtype.
        """
        return as_events(x, self.event_shape, self.columns, self.dtype)

    def context_of(self, x: ArrayLike, context: ArrayLike) -> ArrayLike | None:
        """Returns the context of rows: by default the frame ``x``, if it has the columns."""
        return context_of(x, context, self.columns)

    def as_context(self, context: ArrayLike) -> Tensor | None:
        """Returns a context on the flow's device, with shape (*batch, C).

        Raises:
            ValueError: if the flow has no context, or one of another size.
        """
        context = as_context(context, self.context, self.columns)
        return None if context is None else context.to(self.device)

    def standardize_context(self, mean: Tensor, deviation: Tensor) -> None:
        """Sets the mean and standard deviation, (C,), by which contexts are standardized.

        Constant columns are only centered: their scale is 1.
        """
        mean, deviation = (t.to(self.device, torch.float64) for t in (mean, deviation))
        self.context_mean.copy_(mean)
        # The stored mean is rounded to the flow's dtype: use the deviations around that one.
        spread = torch.hypot(deviation, mean - self.context_mean)
        varies = deviation > CONSTANT * mean.abs()
        self.context_scale.copy_(torch.where(varies, 1 / spread, 1.0))

    def standardized(self, context: Tensor) -> Tensor:
        """Returns contexts as the layers use them."""
        return ((context - self.context_mean) * self.context_scale).to(self.dtype)

    @property
    def dequantizer(self) -> Dequantizer | None:
        """The layer that makes integers and categories continuous: the first, or none."""
        first = self.layers[0] if len(self.layers) else None
        return first if isinstance(first, Dequantizer) else None

    def dequantize(self, x: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Returns rows in the flow's dtype, with noise on integers if the flow dequantizes."""
        if self.dequantizer is None:
            return x.to(self.device, self.dtype)
        generator = ContentGenerator() if generator is None else generator
        return self.dequantizer.dequantize(x, self._zero, generator)

    def preprocess(self, x: ArrayLike, *, generator: Generator | None = None) -> Tensor:
        """Returns rows of raw data after the preprocessing."""
        x = self.dequantize(self.as_events(x), generator=generator)
        for layer in islice(self.layers, self.n_preprocessing):
            x = layer(x)
        return x

    @property
    def initialized(self) -> bool:
        """True if all data-dependent layers are initialized."""
        return all(layer.initialized for layer in self.layers)

    @torch.no_grad()
    def initialize(
        self, x: ArrayLike, *, context: ArrayLike = None, generator: Generator | None = None
    ) -> None:
        """Initializes layers such as ``ActNorm`` from one batch of raw data, in order.

        Layers that are initialized, by an earlier call or a checkpoint, stay as they are. A layer
        that is not is the identity.
        """
        density = self(context)
        x = self.dequantize(density.rows(x)[0], generator=generator)
        for layer in density.layers:
            if not layer.initialized:
                layer.initialize(x)
            x = layer(x)

    def __repr__(self) -> str:
        """Returns a summary: shape, size and dtype, columns, layers and base, one per line."""
        size = sum(parameter.numel() for parameter in self.parameters())
        lines = [f"Flow(event_shape={self.event_shape}, parameters={size:,}, dtype={self.dtype}, "
                 f"device={self.device})"]  # fmt: skip
        names = self.columns.names if self.columns else []
        if names:
            lines.append(f"  columns: {_shortened(names)}")
        if self.context:
            known = self.columns.context if self.columns is not None else None
            names = known.names if known else []
            lines.append(f"  context: {self.context}" + (f" ({_shortened(names)})" * bool(names)))
        for index, layer in enumerate(self.layers):
            part = "preprocessing" if index < self.n_preprocessing else "layer"
            lines.append(f"  {part} {index}: {_one_line(layer)}")
        return "\n".join([*lines, f"  base: {_one_line(self.base)}"])


def _one_line(module: nn.Module) -> str:
    return f"{type(module).__name__}({' '.join(module.extra_repr().split())})"


def _shortened(names: Sequence[str]) -> str:
    rest = f", … ({len(names)} in all)" if len(names) > 8 else ""
    return ", ".join(names[:8]) + rest
