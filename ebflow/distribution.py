"""The density of a flow given a context, as a distribution of PyTorch."""

import math
import numbers
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .bases import GaussianMixture, StandardNormal, log_mass
from .batching import parts
from .bijections import Bijection, Cells, Dequantize
from .bijections.weighted import fixed_weights
from .density import FlowEvaluation, LogDensity
from .randomness import ContentGenerator, Generator, RowGenerator
from .tables import ArrayLike
from .tables.adapter import check_finite, differing

if TYPE_CHECKING:
    from .flow import Flow

PLACES = 4  # Places in the cells of a row, over which its density is averaged
NARROW = 0.01  # Width of the latents of a cell in which the density is constant

ENERGY, LATENT = attrgetter("energy"), attrgetter("latent")
Shape = int | Sequence[int]
T = TypeVar("T")
OFF_GRID = math.log(1e6)  # Energy of a value off the grid, or between the levels, of a column


class FlowDistribution(Distribution, LogDensity):
    """The density of a flow given a context, a ``torch.distributions.Distribution``.

    Its batch shape is that of the context, ``()`` without one. Values broadcast with it. Many
    rows are processed in parts of bounded memory, with the same results.

    Arguments:
        context: c with shape (*batch, C); None if the flow has no context.

    Raises:
        ValueError: if the context has another size than the flow's. A flow with a context that is
            used without one raises when it is evaluated.
    """

    arg_constraints: dict[str, Any] = {}

    def __init__(self, flow: "Flow", context: ArrayLike | None = None) -> None:
        self.flow, self.context = flow, flow.as_context(context)
        batch = () if self.context is None else self.context.shape[:-1]
        super().__init__(torch.Size(batch), torch.Size(flow.event_shape), validate_args=False)
        self._layers: list[Bijection] | None = None
        rows = self._context_rows
        if rows is None:
            self._layers, self.base = list(flow.layers), flow.base
        else:
            self.base = flow.base.condition(flow.standardized(rows))
            if len(self._parts(rows.shape[0])) == 1:  # len() would fix the size in a graph
                self._layers = self._conditioned()

    @property
    def layers(self) -> list[Bijection]:
        """The layers given the context."""
        # Those of many contexts are not stored, because each part of the rows needs its own.
        return self._conditioned() if self._layers is None else self._layers

    def _conditioned(self) -> list[Bijection]:
        rows = self.flow.standardized(self._context_rows)
        return [layer.condition(rows) for layer in self.flow.layers]

    @property
    def _context_rows(self) -> Tensor | None:
        return None if self.context is None else self.context.reshape(-1, self.flow.context)

    @property
    def has_rsample(self) -> bool:
        """True if samples are differentiable: integers and categories are rounded."""
        return self.flow.dequantizer is None or not self.flow.dequantizer.noisy

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "FlowDistribution":
        """Returns the distribution, and its context, with this batch shape."""
        context = None if self.context is None else self.context.expand(*batch_shape, -1)
        wider = FlowDistribution(self.flow, context)
        wider._batch_shape = torch.Size(batch_shape)
        return wider

    def at(self, x: Tensor) -> FlowEvaluation:
        """Returns the evaluation at dequantized rows, which shares work between its values.

        ``x`` has the shape (R B, *event): R rows for each of the B rows of the context.
        """
        return FlowEvaluation(self.layers, self.base, x)

    def energy(self, x: ArrayLike, *, generator: Generator | None = None) -> Tensor:
        """Returns E(x) in nats with shape (*batch,); that of the mean density in cells."""
        energy, layer = self._mean_energy(x, generator), self.flow.dequantizer
        if layer is None or not layer.noisy:
            return energy
        rows, batch = self._flattened(self.flow.as_events(x), self.event_shape)
        counts = self._for_batch(batch).map(lambda _, x: layer.off_grid(x).flatten(1).sum(1), rows)
        return energy + OFF_GRID * torch.cat(counts).view(batch).to(energy)

    def _mean_energy(self, x: ArrayLike, generator: Generator | None) -> Tensor:
        """Returns E of the density at a place in the cells of rows, or of its mean in them."""
        cells = self.flow.dequantizer
        single = isinstance(generator, torch.Generator | RowGenerator)
        if single or not isinstance(cells, Cells) or not cells.uneven:
            return self._evaluated(ENERGY, x, generator)
        if self.event_shape == (1,) and isinstance(self.base, StandardNormal | GaussianMixture):
            return self._exact_energy(x, cells)
        places = (generator or ContentGenerator()).spread(PLACES)
        energies = torch.stack([self._evaluated(ENERGY, x, place) for place in places])
        return math.log(PLACES) - (-energies).logsumexp(0)

    def _exact_energy(self, x: ArrayLike, cells: Cells) -> Tensor:
        """Returns E of one column, by the probability of the cells that are not narrow."""
        energy = self._evaluated(ENERGY, x, 0.5)
        ends = torch.cat([self._evaluated(LATENT, x, u) for u in (0.0, 1.0)], -1)
        start, end = cells.cells(self.rows(x)[0].to(cells.origin))
        measure = cells.column_slopes(start) - (end - start).log()
        exact = -log_mass(self.base, ends) - measure.view(energy.shape) - self.log_normalizer()
        wide = (ends.diff()[..., 0].abs() > NARROW) & energy.isfinite()
        return torch.where(wide, exact.to(energy), energy)

    def log_prob(self, value: ArrayLike, *, generator: Generator | None = None) -> Tensor:
        """Returns the log-density of raw data in nats, with shape (*batch,).

        It is exact if no value has a cell, or all that do have exact levels. So is that of one
        column above a normal base or a mixture. Otherwise the density of a table's row is a mean
        over ``PLACES`` places in its cells, right to a tenth of a nat if the density varies little
        in a cell. Of integers of images it is a lower bound: the density at one place. A value
        that is no level or grid value of its column is a millionth as likely.

        Places are a function of the row's values, so the result does not depend on batch or order.
        A ``generator`` takes one random place instead: on average a bound.

        A row of a table with missing values (NaN) has an estimate of log p of its observed
        values: see ``log_prob_and_error``. A row of a frame that differs from a constant, or from
        an exact linear function of other columns, has −∞.

        Raises:
            ValueError: if a value or a context is not finite, except for missing values.
        """
        from .proposals import has_missing, warn_of_poor

        x = self.flow.as_events(value)
        if has_missing(self.flow, x):
            log_p, error = self.log_prob_and_error(value, generator=generator)
            warn_of_poor(error, int(x.isnan().any(-1).sum()))
            return log_p
        with fixed_weights(self.flow):
            energy = self.energy(x, generator=generator)
            log_p = -energy - self.log_normalizer().to(energy.dtype)
        if isinstance(value, Tensor):
            return log_p
        return log_p.masked_fill(differing(value, self.flow.columns).to(log_p.device), -math.inf)

    def log_prob_and_error(
        self, value: ArrayLike, *, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns log p of the observed values of rows, and standard errors, (*batch,) each.

        Complete rows have ``log_prob`` and the error 0. Those of other rows are estimates by
        importance sampling, without gradients: see ``ebflow.proposals``.

        Raises:
            ValueError: if a value or a context is infinite, or the flow is one of images.
        """
        from .proposals import has_missing, marginals

        rows, batch = self._flattened(self.flow.as_events(value), self.event_shape)
        density = self if self.context is None else self.expand(batch)
        contexts, chosen = density._context_rows, rows.isnan().flatten(1).any(1)
        if not has_missing(self.flow, rows):
            log_p = density.log_prob(value, generator=generator)
            return log_p, torch.zeros_like(log_p)
        check_finite(rows.nan_to_num(0.0, math.inf, -math.inf), contexts, self.flow.columns)
        parts = [None if contexts is None else contexts[part] for part in (~chosen, chosen)]
        log_p = rows.new_zeros(len(rows), dtype=self.flow.dtype, device=self.flow.device)
        error = torch.zeros_like(log_p)
        log_p[~chosen] = self.flow(parts[0]).log_prob(rows[~chosen], generator=generator)
        some = rows[chosen].to(self.flow.device)
        log_p[chosen], error[chosen] = marginals(self.flow, some, parts[1])
        differs = differing(value, self.flow.columns).to(log_p.device)
        log_p, error = log_p.reshape(batch), error.reshape(batch)
        return log_p.masked_fill(differs, -math.inf), error.masked_fill(differs, 0.0)

    def log_normalizer(self) -> Tensor:
        """Returns log Z in nats, a scalar: O(D³ L), cached until weights change, without grad."""
        return self.flow.log_normalizer()

    def score(self, x: ArrayLike) -> Tensor:
        """Returns ∇ₓ log p with the shape of ``x``: 2 L GEMMs, differentiable, no autograd."""
        return self._evaluated(lambda at: at.score, x)

    def to_latent(self, x: ArrayLike, *, generator: Generator | None = None) -> Tensor:
        """Returns the latent u with shape (*batch, *latent)."""
        return self._evaluated(LATENT, x, generator)

    def from_latent(self, u: ArrayLike) -> Tensor:
        """Returns the raw data x with latent ``u``; dequantized columns are rounded again."""
        if not isinstance(u, Tensor):
            u = torch.as_tensor(u).to(self.flow.device, self.flow.dtype)
        if u.shape[max(0, u.ndim - len(self.flow.latent_shape)) :] != self.flow.latent_shape:
            expected = ", ".join(map(str, self.flow.latent_shape))
            raise ValueError(f"u: found shape {tuple(u.shape)}, expected (*, {expected})")
        rows, batch = self._flattened(u, self.flow.latent_shape)
        x = self._for_batch(batch).map(FlowDistribution._inverse, rows)
        return torch.cat(x).reshape(*batch, *self.event_shape)

    def rsample(self, sample_shape: Shape = (), *, generator: Generator | None = None) -> Tensor:
        """Returns exact, differentiable samples with shape (*sample_shape, *batch, *event).

        O(D²) per sample once the linear layers are factorized.

        Raises:
            NotImplementedError: if ``has_rsample`` is false.
        """
        if not self.has_rsample:
            raise NotImplementedError(
                "rsample: samples of this flow are rounded to integers or categories, which has "
                "no gradient; use sample"
            )
        return self._samples(sample_shape, generator)

    def sample(self, sample_shape: Shape = (), *, generator: Generator | None = None) -> ArrayLike:
        """Returns exact samples without gradients, with shape (*sample_shape, *batch, *event).

        If the flow was fitted to a frame, it returns a frame of the samples in this order, with
        the columns of their contexts. If it was fitted to an array, it returns an array.
        """
        return self.as_fitted(self.sample_tensor(sample_shape, generator=generator))

    def sample_tensor(
        self, sample_shape: Shape = (), *, generator: Generator | None = None
    ) -> Tensor:
        """Returns the numbers of ``sample``, before they become a frame."""
        with torch.no_grad():
            return self._samples(sample_shape, generator)

    def sample_and_log_prob(
        self, sample_shape: Shape = (), *, generator: Generator | None = None
    ) -> tuple[ArrayLike, Tensor]:
        """Returns samples, as ``sample``, and their log-densities, without gradients.

        If the flow dequantizes, the log-density is that of the sample before it is rounded.
        """
        with torch.no_grad(), fixed_weights(self.flow):
            u, batch = self._latents(sample_shape, generator)
            pairs = self._for_batch(batch).map(FlowDistribution._inverse_and_log_prob, u)
            x, log_p = (torch.cat(values) for values in zip(*pairs, strict=True))
            log_p = log_p - self.log_normalizer()
        x = x.reshape(*batch, *self.event_shape)
        return self.as_fitted(x), log_p.reshape(batch)

    def as_fitted(self, x: Tensor) -> ArrayLike:
        """Returns samples as a frame, with their contexts, or an array, as the flow was fitted."""
        columns, batch = self.flow.columns, x.shape[:-1]
        if not columns:
            return x
        parts = [x.reshape(-1, columns.width)]
        if self.context is not None:
            parts.append(self.context.expand(*batch, -1).reshape(-1, self.flow.context))
        rows = columns.decode(*(part.double().cpu().numpy() for part in parts))
        return rows.reshape(*batch, -1) if isinstance(rows, np.ndarray) else rows

    def _samples(self, shape: Shape, generator: Generator | None) -> Tensor:
        with fixed_weights(self.flow):
            u, batch = self._latents(shape, generator)
            return self.from_latent(u.reshape(*batch, *u.shape[1:]))

    def _latents(
        self, shape: Shape, generator: Generator | None
    ) -> tuple[Tensor, tuple[int, ...]]:
        """Returns samples of the base in rows, and their batch shape."""
        sizes = tuple(shape) if isinstance(shape, Sequence) else (shape,)
        if not all(isinstance(size, numbers.Integral) and size >= 0 for size in sizes):
            expected = "a whole number from 0, or a tuple of them"
            raise ValueError(f"shape: found {shape!r}, expected {expected}")
        batch = (*map(int, sizes), *self.batch_shape)
        rows = (math.prod(batch), *self.flow.latent_shape)
        like = torch.zeros((), dtype=self.flow.dtype, device=self.flow.device)
        check_finite(None, self.context, self.flow.columns)
        return self.base.draw(rows, like, generator), batch

    def _inverse(self, x: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            x = layer.inverse(x)
        return x

    def _inverse_and_log_prob(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the data with latent ``x``, and log p + log Z."""
        log_p = self.base.log_prob(x)
        for layer in reversed(self.layers):
            if layer.constant_jacobian:
                x = layer.inverse(x)
            else:
                x, log_det = layer.inverse_and_log_det(x)
                log_p = log_p + log_det
        return x, log_p

    def rows(self, x: ArrayLike) -> tuple[Tensor, tuple[int, ...]]:
        """Returns raw rows with shape (N, *event) and their batch shape.

        Raises:
            ValueError: if a value is not finite.
        """
        rows, batch = self._flattened(self.flow.as_events(x), self.event_shape)
        check_finite(rows, self.context, self.flow.columns)
        if isinstance(self.flow.dequantizer, Dequantize):
            self.flow.dequantizer.check(rows)
        return rows, batch

    def _evaluated(
        self,
        value: Callable[[FlowEvaluation], Tensor],
        x: ArrayLike,
        generator: Generator | None = None,
    ) -> Tensor:
        """Returns a value of the evaluations at ``x``, with shape (*batch, …)."""
        rows, batch = self.rows(x)
        dequantize = partial(self.flow.dequantize, generator=generator)
        if isinstance(generator, torch.Generator | RowGenerator):
            # Its numbers depend on a row's position among all rows, not only among its part.
            rows, dequantize = dequantize(rows), nn.Identity()

        def evaluate(density: FlowDistribution, x: Tensor) -> Tensor:
            result = value(density.at(dequantize(x)))
            # Scores by autograd have a graph even without gradients, which would be kept.
            return result if torch.is_grad_enabled() else result.detach()

        values = torch.cat(self._for_batch(batch).map(evaluate, rows))
        return values.reshape((*batch, *values.shape[1:]))

    def map(self, function: Callable[["FlowDistribution", Tensor], T], x: Tensor) -> list[T]:
        """Applies a function to parts of the rows ``x``, each with its part of the context."""
        slices = self._parts(len(x))
        if len(slices) == 1:
            return [function(self, x)]
        tensors = (x, self.context, *self.flow.parameters())
        differentiable = any(t is not None and t.requires_grad for t in tensors)
        with torch.set_grad_enabled(torch.is_grad_enabled() and differentiable):
            return [function(self._part(part), x[part]) for part in slices]

    def _parts(self, count: int) -> list[slice]:
        if torch.compiler.is_compiling():  # a graph is for any number of rows
            return [slice(0, count)]
        period = max(1, math.prod(self.batch_shape)) if self.flow.context else 1
        itemsize = self.flow.dtype.itemsize
        return parts(count, self.flow.layers, self.event_shape, itemsize, period=period)

    def _part(self, rows: slice) -> "FlowDistribution":
        """Returns the density of a part of the rows, of which row i has the context i mod B."""
        contexts = self._context_rows
        if contexts is None or (rows.stop - rows.start) % len(contexts) == 0:
            return self
        first = rows.start % len(contexts)
        return FlowDistribution(self.flow, contexts[first : first + rows.stop - rows.start])

    def _for_batch(self, batch: tuple[int, ...]) -> "FlowDistribution":
        """Returns the distribution whose rows of the context follow those of a batch."""
        own = len(self.batch_shape)
        ends = batch[len(batch) - own :] == tuple(self.batch_shape)
        return self if self.context is None or ends else self.expand(batch)

    def _flattened(self, x: Tensor, event: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
        """Returns events as rows, and their batch shape, broadcast with that of the context."""
        batch = x.shape[: x.ndim - len(event)]
        if self.batch_shape:  # PyTorch's function would import its compiler
            batch = torch.broadcast_shapes(batch, self.batch_shape)
        return x.expand(*batch, *event).reshape(-1, *event), tuple(batch)

    def __repr__(self) -> str:
        """Returns the shapes of the batch, the event and the context."""
        context = None if self.context is None else tuple(self.context.shape)
        return (
            f"FlowDistribution(batch_shape={tuple(self.batch_shape)}, "
            f"event_shape={tuple(self.event_shape)}, context={context})"
        )
