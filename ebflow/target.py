"""A flow's rows in coordinates of separate columns, and a mixture of Gaussians near them.

The coordinates z are those after the flow's leading elementwise layers. All conditional
distributions are computed there (``proposals``, ``conditionals``): columns are still separate,
and unbounded but for known bounds. An observed value on a grid is a cell, an interval of z.
"""

from functools import cached_property
from itertools import chain, takewhile
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .bases import GaussianMixture
from .bijections import Affine, Categorical, Cells
from .bijections.activations import Elementwise
from .bijections.reshape import Permutation
from .conditioning import Conditional
from .density import without_nan
from .distribution import FlowDistribution
from .flow import Flow
from .mixtures import fit_components
from .randomness import generator as derive
from .randomness import normal
from .tables import ArrayLike
from .tables.rows import refuse

SAMPLES, COMPONENTS = 2048, 8  # Samples to which the mixture is fitted, and its most Gaussians
WIDE = 1.1  # Standard deviations of proposals over the mixture's: the tails must not be too light
ROWS = 10  # Samples of the mixture's fit per column and component
RIDGE = 1e-3  # Number added to variances of whitened rows
VALUES = 1 << 22  # Largest number of values of an evaluation


def mixture_of(samples: Tensor, most: int, generator: torch.Generator) -> GaussianMixture:
    """Returns a mixture fitted to finite samples with shape (N, D), in float64.

    It has ``most`` components, or fewer for few samples of many columns.
    """
    count = max(1, min(most, len(samples) // (ROWS * samples.shape[1])))
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    mixture = fit_components(samples, count, ridge=RIDGE, seed=seed)
    covariances = WIDE**2 * mixture.covariances
    return GaussianMixture(mixture.weights, mixture.means, covariances).to(samples.device)


def rows_and_contexts(
    flow: Flow, x: ArrayLike, context: ArrayLike | None
) -> tuple[Tensor, Tensor]:
    """Returns raw rows (N, D) and their contexts (N, C) as tensors; C = 0 without contexts.

    Raises:
        ValueError: if the flow is one of images, shapes do not agree, or a value is infinite.
    """
    if len(flow.event_shape) != 1:
        raise ValueError(f"flow: found events {flow.event_shape}, expected the rows of a table")
    context, rows = flow.as_context(flow.context_of(x, context)), flow.as_events(x)
    rows = rows.reshape(-1, rows.shape[-1])
    context = context[None] if context is not None and context.ndim == 1 else context
    names = flow.columns.features if flow.columns else None
    refuse(rows, rows.isinf(), "x", names, "a finite number")
    fits = context is not None and context.ndim == 2 and len(context) in (1, len(rows))
    if flow.context and not fits:
        found = None if context is None else tuple(context.shape)
        raise ValueError(f"context: found {found}, expected shape {(len(rows), flow.context)}")
    return rows, rows[:, :0] if context is None else context.expand(len(rows), -1)


class Target:
    """The distribution of rows after elementwise layers, and a mixture of Gaussians near it.

    Arguments:
        flow: The flow of rows (D,).
        samples: Raw rows with shape (N, D) that have the flow's distribution, or nearly.
        context: The contexts of the samples, with shape (N, C), which the mixture has as well.
        generator: The source of the dequantization noise, and of the start of the mixture.
        components: The largest number of Gaussians of the mixture.

    Attributes:
        preprocessing: The flow's dequantization and leading elementwise layers.
        rest: The flow after them.
    """

    def __init__(
        self,
        flow: Flow,
        samples: Tensor,
        context: Tensor,
        generator: torch.Generator,
        components: int,
    ) -> None:
        layers, first = list(flow.layers), int(flow.dequantizer is not None)
        kinds = Elementwise | Affine
        self.elementwise = list(takewhile(lambda layer: isinstance(layer, kinds), layers[first:]))
        count = first + len(self.elementwise)
        self.preprocessing = Flow(flow.event_shape, layers[:count]).to(flow.device, flow.dtype)
        self.rest, self.samples = flow.after(count), samples
        self.context, self.components, self.generator = context, components, generator
        self.z = self.transform(flow.dequantize(samples, generator=generator))[0]

    @classmethod
    @torch.no_grad()
    def of(cls, flow: Flow) -> "Target":
        """Returns the target of a flow with a fixed seed, which depends only on the flow.

        Standardized contexts of the samples are normal. The target is cached until weights change.
        """
        tensors = chain(flow.parameters(), flow.buffers())
        state = [(t.data_ptr(), t._version, t.dtype) for t in tensors]
        before, target = CACHE.get(flow, (None, None))
        if before != state:
            noise = derive(0, "target", device=flow.device)
            context = torch.zeros(SAMPLES, 0, device=flow.device)
            if flow.context:
                z = normal((SAMPLES, flow.context), flow.context_mean, noise)
                context = flow.context_mean + z / flow.context_scale
            given = flow(context if flow.context else None)
            samples = given.sample_tensor(() if flow.context else SAMPLES, generator=noise)
            target = cls(flow, samples, context, noise, COMPONENTS)
            CACHE[flow] = state, target
        return target

    @cached_property
    def categories(self) -> dict[int, int]:
        """The numbers K of levels of columns with exact probabilities, in the layer's order.

        Level k of them has the coordinates [k, k + 1), and the same density everywhere in it.
        """
        columns = torch.arange(self.z.shape[1])
        for layer in self.rest.layers:
            if isinstance(layer, Permutation):
                columns = columns[layer.order.cpu()]
            elif isinstance(layer, Categorical):
                return dict(zip(columns[-layer.count :].tolist(), layer.sizes, strict=True))
        return {}

    @property
    def noisy(self) -> bool:
        """True if observed values have cells, and other densities at other places in them."""
        if self.cells is None:
            return self.preprocessing.dequantizer is not None
        return not set(self.cells.noisy_columns) <= set(self.categories)

    @cached_property
    def mixture(self) -> GaussianMixture:
        """The mixture, fitted at its first use."""
        rows = self._with_contexts(self.z[:, None], self.context)[:, 0]
        return mixture_of(rows[rows.isfinite().all(1)], self.components, self.generator)

    @property
    def cells(self) -> Cells | None:
        """The cells of the columns; None without."""
        layer = self.preprocessing.dequantizer
        return layer if isinstance(layer, Cells) else None

    @cached_property
    def bounds(self) -> Tensor:
        """The ends of known bounds in coordinates, (2, D), infinite without one."""
        if self.cells is None:
            infinite = torch.full_like(self.z[0], torch.inf).double()
            return torch.stack([-infinite, infinite])
        ends = torch.stack([self.cells.low, self.cells.high])
        z = self.transform(torch.where(ends.isfinite(), ends, 0.0).to(self.z))[0].double()
        return torch.where(ends.isfinite(), z, ends)

    def outside(self, z: Tensor) -> Tensor:
        """Returns True for elements (…, D) beyond bounds or levels of exact probabilities."""
        low, high = self.bounds.to(z)
        beyond = (z < low) | (z > high)
        for column, size in self.categories.items():
            beyond[..., column] |= (z[..., column] < 0) | (z[..., column] >= size)
        return beyond

    def impossible(self, x: Tensor) -> Tensor:
        """Returns True for values of raw rows outside known bounds, with shape (R, D)."""
        if self.cells is None:
            return torch.zeros_like(x, dtype=torch.bool)
        return self.cells.outside(self.preprocessing.dequantize(self.filled(x))) & ~x.isnan()

    def off_grid(self, x: Tensor) -> Tensor:
        """Returns True for values of raw rows (R, D) of columns that had only other values."""
        layer = self.preprocessing.dequantizer
        return torch.zeros_like(x, dtype=torch.bool) if layer is None else layer.off_grid(x)

    def filled(self, x: Tensor) -> Tensor:
        """Returns raw rows with the values of a sample in place of NaN."""
        return torch.where(x.isnan(), self.samples[0].to(x), x)

    def place(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Returns raw rows (R, D) in coordinates, and log dz/dx, (R, M, D) each.

        Places in the values' cells are ``u`` (R, M, D) in [0, 1]. NaN become values of a sample.
        """
        y, layer = self.filled(x).repeat_interleave(u.shape[1], 0), self.preprocessing.dequantizer
        y = y.to(self.z) if layer is None else layer.add_noise(y, self.z, u.flatten(0, 1))
        z, slopes = self.transform(y)
        slopes = slopes if self.cells is None else slopes + self.cells.column_slopes(y)
        return z.view(u.shape), slopes.view(u.shape)

    def raw(self, z: Tensor) -> Tensor:
        """Returns the raw rows of points (…, D)."""
        return self.preprocessing.from_latent(z.flatten(0, -2)).view(z.shape)

    def transform(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns dequantized rows after the elementwise layers, and log dz/dy, (N, D) each."""
        total = torch.zeros_like(y)
        for layer in self.elementwise:
            if isinstance(layer, Affine):
                y, total = layer(y), total + layer.log_scale
            else:
                at = layer.local(y, 1)
                y, total = layer.value(at), total + layer.derivatives(at, 1)[0].log()
        return y, total

    def condition(
        self, y: Tensor, missing: Tensor, context: Tensor, without: int | None = None
    ) -> Conditional:
        """Returns the mixture given the observed elements of rows (N, R, D).

        Each R rows have the same missing elements (N, D) and contexts (N, C). The column
        ``without`` is no part of the mixture and of the result.
        """
        rows, count = self._with_contexts(y, context), self.rest.context
        missing = torch.cat([missing.new_zeros(len(y), count), missing], 1)
        if without is None:
            return Conditional(self.mixture, rows, missing, contexts=count)
        others = [k for k in range(rows.shape[2]) if k != count + without]
        mixture = self.mixture.marginal(others)
        return Conditional(mixture, rows[..., others], missing[:, others], contexts=count)

    def given(self, context: Tensor) -> FlowDistribution:
        """Returns the distribution after the elementwise layers, given contexts (N, C)."""
        return self.rest(context if self.rest.context else None)

    def log_prob(self, z: Tensor, context: Tensor, log_levels: Tensor | None = None) -> Tensor:
        """Returns log p, with shape (R, P), of P points of each row (R, P, D).

        ``log_levels`` is that of the categories, if it is known.
        """
        results = [z.new_zeros(0)]
        for part in self.parts(len(z), z.shape[1:].numel()):
            given = self.given(context[part].repeat_interleave(z.shape[1], 0))
            results += given.map(self._log_real, z[part].flatten(0, 1))
        log_levels = self.log_levels(z, context) if log_levels is None else log_levels
        return torch.cat(results).view(z.shape[:2]) + log_levels.sum(2)

    def _log_real(self, given: FlowDistribution, z: Tensor) -> Tensor:
        """Returns log p (N,) of the elements that are no categories, given the categories."""
        u, total, count = z, z.new_zeros(len(z)), len(self.categories)
        for layer in given.layers[: len(given.layers) - (count > 0)]:
            u, log_det = layer.forward_and_log_det(u)
            total = total + log_det
        return -without_nan(given.base.energy(u[:, : u.shape[1] - count]) - total, z)

    def log_levels(self, z: Tensor, context: Tensor) -> Tensor:
        """Returns log p of the categories of points, each given those before it, (R, P, m)."""
        y = z[..., list(self.categories)].floor()
        if not self.categories:
            return y
        log_p = self.layer(context).log_levels(y[:, 0])[:, None].repeat(1, y.shape[1], 1)
        rows = (y != y[:, :1]).flatten(1).any(1).nonzero().flatten()
        for part in rows.split(max(1, VALUES // (y.shape[1] * max(self.categories.values())))):
            layer = self.layer(context[part].repeat_interleave(y.shape[1], 0))
            log_p[part] = layer.log_levels(y[part].flatten(0, 1)).view(-1, *y.shape[1:])
        return log_p

    def layer(self, context: Tensor) -> Categorical:
        """Returns the layer of the categories, the last one, given contexts (N, C)."""
        return self.given(context).layers[-1]

    def parts(self, rows: int, values: int) -> tuple[Tensor, ...]:
        """Returns the numbers of rows, so many at a time that their values are in memory."""
        return torch.arange(rows, device=self.z.device).split(max(1, VALUES // values))

    def chunk(self, points: int) -> int:
        """Returns the number of rows, with some points each, whose ``condition`` is in memory."""
        width = self.z.shape[1]
        return max(1, VALUES // (self.components * width * (width + points)))

    def _with_contexts(self, y: Tensor, context: Tensor) -> Tensor:
        """Returns standardized contexts and rows (N, R, D) side by side, in float64."""
        contexts = self.rest.standardized(context) if self.rest.context else context
        return torch.cat([contexts[:, None].expand(-1, y.shape[1], -1).double(), y.double()], 2)


# The targets of flows, with versions of the weights. A target must not refer to its flow.
CACHE: WeakKeyDictionary[Flow, tuple[list[tuple], Target]] = WeakKeyDictionary()
