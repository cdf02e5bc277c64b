r"""What is known of a table's columns alone, from training rows: grids, bounds and tails.

A column of few distinct values has no density. Where they lie on an ordered grid (integers,
tenths of a degree), uniform noise of one step makes it one. A column with heavy or skewed tails is
carried near a normal one by Johnson's S_U, one that ends at bounds by a logit or a logarithm
before it: each only if rows that were left out of its fit are likelier for it, by ``GAIN`` nats a
row. Categories, and columns of two values on a grid, end at both ends.
"""

__all__ = ["Bounds", "Marginals", "build", "enough", "find_grid", "fit", "gaussianized"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .bijections import (
    Affine,
    Bijection,
    Bounded,
    DequantiseColumns,
    JohnsonSU,
)
from .errors import BadInput
from .optimizers import eager
from .randomness import generator as derive
from .tables.levels import called

ROWS, VALUES = 4_000, 2**22
"""Rows, and values of them, that fits of bounds and tails read at most."""

GRID_ROWS = 20_000
"""Rows in which grids are looked for, at most."""

REPEATS = 5
"""Rows a distinct value, on average, from which on a column counts as one of few values."""

DECIMALS = 6
"""Decimal places up to which a grid is looked for."""

GAIN = 0.01
"""Nats a row, of rows left out of the fit, that a step must gain."""

STRAIGHT = 1e3
"""λ = δ of Johnson's S_U in columns that keep their tails: f(x) = x to 2e-7 x³."""

MARGIN = 1e-6
"""Share of a column's range, from a bound on, in which its map is a line."""

FAR = 1e3
"""Scales of a column's middle from an end, from which on that is not tried as a bound."""

Bounds = Mapping[int, tuple[float | None, float | None]]
"""Lower and upper bounds, None where there is none, by the index of a column."""


_Bounds = tuple[Tensor, Tensor, Tensor]
"""Lower and upper bounds of columns, and how far inside their maps become lines: (D,) each."""


@dataclass(frozen=True)
class Marginals:
    """The steps of columns in front of a flow, and what they do.

    Attributes:
        layers: Dequantization, bounds, standardizing and tails, those that are needed.
        spec: Their names, for ``build``.
        steps: The steps of grids with shape (D,); 0: none.
        bounds: The bounds that are used.
        tails: The columns whose tails are changed.
    """

    layers: list[Bijection]
    spec: list[str]
    steps: Tensor
    bounds: dict[int, tuple[float, float]]
    tails: list[int]

    def summary(self, names: Sequence[str]) -> dict[str, Any]:
        """Returns what is done to which column, JSON-able: steps, bounds and tails."""
        steps = zip(names, self.steps.tolist(), strict=True)
        ends = {k: [None if math.isinf(end) else end for end in pair]
                for k, pair in self.bounds.items()}  # fmt: skip
        return {
            "grids": {name: step for name, step in steps if step},
            "bounds": {names[k]: pair for k, pair in ends.items()},
            "tails": [names[k] for k in self.tails],
        }


def fit(
    x: Tensor,
    *,
    categories: Sequence[int] | None = None,
    grids: bool = True,
    tails: bool = True,
    bounds: Bounds | None = None,
    ends: tuple[Tensor, Tensor] | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Marginals:
    """Fits the steps of columns; O(N D) a pass, some hundred passes.

    Arguments:
        x: Rows with shape (N, D), in random order; the first of them are used.
        categories: The number K of levels of each column of categories, which are always on the
            grid 0 … K − 1; 0 of other columns; None: no column holds categories.
        grids: Whether other columns on grids are dequantized.
        tails: Whether tails and bounds of other columns are looked for.
        bounds: Bounds that are known.
        ends: The least and the greatest values of all rows, (D,) each; None: those of ``x``.
        names: What columns are called in messages; None: by their numbers.
        seed: Where the noise of dequantization comes from.

    Raises:
        BadInput: if a value lies outside its column's bounds.
    """
    x = x[:GRID_ROWS].double().cpu()
    sizes = torch.zeros(x.shape[1]) if categories is None else torch.tensor(categories)
    first, last = (x.amin(0), x.amax(0)) if ends is None else (end.cpu() for end in ends)
    origin, steps = _grids(torch.cat([x, first[None], last[None]]), sizes, grids)
    noise = DequantiseColumns(origin, steps)
    layers: dict[str, Bijection] = {"grids": noise} if steps.any() else {}
    x = noise.dequantize(x, x, derive(seed, "marginals"))[:ROWS]
    curved = torch.zeros(len(steps), dtype=torch.bool)
    sure = _finite_sets(first, last, steps, sizes) if tails else {}
    limits = _known(first, last, {**sure, **(bounds or {})}, steps, names)
    if tails:
        limits, curved = _chosen(x, first, last + steps, *limits)
    lower, upper, _ = limits
    noise.end(torch.where(sizes > 0, 0, lower), torch.where(sizes > 0, sizes, upper))
    layers |= _shapes(x, limits, curved)
    bent = layers["tails"].delta != STRAIGHT if "tails" in layers else curved
    used = (lower.isfinite() | upper.isfinite()).nonzero().flatten().tolist()
    return Marginals(
        list(layers.values()),
        list(layers),
        steps,
        {k: (float(lower[k]), float(upper[k])) for k in used},
        bent.nonzero().flatten().tolist(),
    )


def build(spec: Sequence[str], width: int) -> list[Bijection]:
    """Returns the layers of a ``Marginals.spec`` for D columns, to load a state into."""
    zeros, ones = torch.zeros(width, dtype=torch.float64), torch.ones(width, dtype=torch.float64)
    layers: dict[str, Bijection] = {
        "grids": DequantiseColumns(zeros, zeros),
        "bounds": Bounded(-torch.inf * ones, torch.inf * ones, ones, ones),
        "standard": Affine(zeros, ones, (width,), dtype=torch.float64),
        "tails": JohnsonSU(zeros, ones, zeros, ones),
    }
    return [layers[name] for name in spec]


def _grids(x: Tensor, sizes: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
    """Returns the first points and the steps of the columns' grids, 0 where there is none."""
    found = [
        (0.0, 1.0) if size else find_grid(column) if wanted else (0.0, 0.0)
        for column, size in zip(x.mT.numpy(), sizes.tolist(), strict=True)
    ]
    return torch.tensor(found, dtype=torch.float64).mT.contiguous().unbind(0)


def _shapes(x: Tensor, limits: _Bounds, curved: Tensor) -> dict[str, Bijection]:
    """Returns the steps behind the noise by their names: bounds and tails, as needed."""
    layers: dict[str, Bijection] = {}
    if limits[0].isfinite().any() or limits[1].isfinite().any():
        layers["bounds"] = _bounded(x, limits)
    if curved.any():
        y = layers["bounds"](x) if "bounds" in layers else x
        layers["standard"], layers["tails"] = _unbent(y, curved)
    return layers


def _unbent(y: Tensor, curved: Tensor) -> tuple[Affine, JohnsonSU]:
    """Returns what standardizes columns, and then carries those curved near normal ones."""
    standard = _standard(y)
    return standard, _johnson(standard(y), curved)


def _finite_sets(first: Tensor, last: Tensor, steps: Tensor, sizes: Tensor) -> Bounds:
    """Returns the bounds of categories and of columns of two values: nothing lies beyond."""
    two = (steps > 0) & (sizes == 0) & (last - first < 1.5 * steps)
    bounds = {k: (float(first[k]), float(last[k])) for k in two.nonzero().flatten().tolist()}
    codes = sizes.nonzero().flatten().tolist()
    return bounds | {k: (0.0, float(sizes[k]) - 1) for k in codes}


def enough(width: int) -> int:
    """Returns how many rows of D numbers a fit of every one is worth its time."""
    return max(1000, min(ROWS, VALUES // width))


def gaussianized(y: Tensor) -> list[Bijection]:
    """Returns what carries directions with heavy or skewed tails near normal ones.

    Of each direction Johnson's S_U is fitted, and kept if rows that were left out are likelier for
    it. Behind a whitening it is a step of Gaussianization: Gaussianization (Chen and Gopinath,
    2000). O(N D) a pass, some hundred passes.

    Arguments:
        y: Rows with shape (N, D), in random order; ``enough(D)`` will do.

    Returns:
        No layer, or two of float64: standardizing, and the transformation.
    """
    y = y.double()
    free = _known(y.amin(0), y.amax(0), {})
    curved = _held_out(y, free, True) - _held_out(y, free, False) > GAIN
    return [*_unbent(y, curved)] if curved.any() else []


def find_grid(x: np.ndarray) -> tuple[float, float]:
    """Returns the first point and the step of the ordered grid that a column lies on.

    The step is the greatest that divides all differences, of values of up to ``DECIMALS`` decimal
    places. It is 0 of a column with few repeated values, and of one whose values lie on no grid.
    """
    values = np.unique(x)
    if len(values) < 2 or len(values) * REPEATS > len(x):
        return 0.0, 0.0
    for places in range(DECIMALS + 1):
        scaled = values * 10.0**places
        whole = np.round(scaled)
        if abs(whole).max() < 2**53 and np.allclose(scaled, whole, rtol=1e-7, atol=1e-3):
            step = np.gcd.reduce(np.diff(whole.astype(np.int64)))
            return float(values[0]), float(step) / 10.0**places
    return 0.0, 0.0


def _known(
    first: Tensor,
    last: Tensor,
    bounds: Bounds,
    steps: Tensor | float = 0.0,
    names: Sequence[str] | None = None,
) -> _Bounds:
    """Returns the bounds that are given, infinite where none is, of columns completed by noise.

    Those that are given are of values, which lie between ``first`` and ``last``, (D,) each.
    """
    lower, upper = torch.full_like(first, -torch.inf), torch.full_like(last, torch.inf)
    for column, (low, high) in bounds.items():
        lower[column] = -math.inf if low is None else low
        upper[column] = math.inf if high is None else high
    outside = ((first < lower) | (last > upper)).nonzero().flatten().tolist()
    if outside:
        k = outside[0]
        raise BadInput(
            f"bounds, {called(k, names)}: found values in [{first[k]:.6g}, {last[k]:.6g}], "
            f"expected [{lower[k]:.6g}, {upper[k]:.6g}]"
        )
    width = (last + steps - first).clamp(min=torch.finfo().tiny)
    return lower, upper + steps, width * MARGIN


def _chosen(
    x: Tensor, first: Tensor, last: Tensor, lower: Tensor, upper: Tensor, margin: Tensor
) -> tuple[_Bounds, Tensor]:
    """Returns bounds, and whether tails are changed, of each column, by rows left out.

    A column whose quartiles coincide has no density to fit: its tails are kept. All rows lie
    between ``first`` and ``last``.
    """
    known = lower, upper, margin
    low, high, margin = _edges(x, first, last, known)
    tried = [(known, False), (known, True)]
    if not (low.equal(lower) and high.equal(upper)):
        ends = (low, upper), (lower, high), (low, high)
        tried += [((*pair, margin), True) for pair in ends]
    scores = torch.stack([_held_out(x, *pair) for pair in tried])
    scores -= GAIN * torch.tensor([0.0, 1, 2, 2, 3])[: len(tried), None]
    fitted = scores.isfinite() & (_spread(x) > 0)
    best = torch.where(fitted, scores, -torch.inf).argmax(0)
    parts = zip(*(bounds for bounds, _ in tried), strict=True)
    lower, upper, margin = (torch.stack(part).gather(0, best[None])[0] for part in parts)
    return (lower, upper, margin), best > 0


def _edges(x: Tensor, first: Tensor, last: Tensor, known: _Bounds) -> _Bounds:
    """Returns where columns seem to end, a little beyond all rows, or else their known bounds.

    A row in n is beyond the others at each end: where rows thin out towards it, far beyond. So
    an end counts as a bound only if a hundredth of the rows lies in the last fiftieth of the
    range, and no bound of the column is known. Where single rows are very far from the others a
    bound would be too: behind its logarithm single precision does not tell the others apart.
    """
    lower, upper, margin = known
    width, free = last - first, lower.isinf() & upper.isinf()
    low, median, high = torch.quantile(x, x.new_tensor([0.01, 0.5, 0.99]), dim=0)
    beyond, far = 2 * width / len(x), FAR * _scale(x)
    ends = (
        (low - first <= 0.02 * width) & (median - first + beyond < far) & free,
        (last - high <= 0.02 * width) & (last - median + beyond < far) & free,
    )
    return (
        torch.where(ends[0], first - beyond, lower),
        torch.where(ends[1], last + beyond, upper),
        torch.where(ends[0] | ends[1], beyond / 4, margin),
    )


def _held_out(x: Tensor, bounds: _Bounds, curved: bool) -> Tensor:
    """Returns the mean log-likelihood of every second row by a fit to the others, shape (D,)."""
    bounded = _bounded(x[::2], bounds)
    y, log_slopes = bounded(x), bounded.derivatives(x, 1)[0].log()
    standard = _standard(y[::2])
    y, log_slopes = standard(y), log_slopes + standard.log_scale
    if curved:
        johnson = _johnson(y[::2], torch.ones(y.shape[1], dtype=torch.bool))
        y, log_slopes = johnson(y), log_slopes + johnson.derivatives(y, 1)[0].log()
    deviation, mean = torch.std_mean(y[::2], 0, correction=0)
    log_p = _log_normal((y - mean) / deviation) - deviation.log() + log_slopes
    return log_p[1::2].mean(0)


def _bounded(x: Tensor, bounds: _Bounds) -> Bounded:
    """Returns the map of columns with bounds: a logarithm up to the median from the only one."""
    lower, upper, margin = bounds
    median = x.median(0).values
    distance = torch.minimum(median - lower, upper - median)
    scale = torch.where(distance.isfinite(), distance.maximum(margin), 1.0)
    return Bounded(lower, upper, margin, scale)


def _standard(y: Tensor) -> Affine:
    """Returns what takes off the medians and divides by the scale of distinct values."""
    median, spread, deviation = y.quantile(0.5, 0), _scale(y), y.std(0)
    spread = torch.where(spread > 0, spread, torch.where(deviation > 0, deviation, 1.0))
    return Affine(median, 1 / spread, median.shape, dtype=torch.float64)


def _spread(y: Tensor) -> Tensor:
    """Returns the quartiles' distance over 1.349: the standard deviation of a normal column."""
    first, third = torch.quantile(y, y.new_tensor([0.25, 0.75]), dim=0)
    return (third - first) / 1.349


def _scale(y: Tensor) -> Tensor:
    """Returns that of the distinct values, among which a sentinel of many rows counts once."""
    found = _spread(y)
    for k in (y.sort(0).values.diff(dim=0) == 0).any(0).nonzero().flatten().tolist():
        found[k] = _spread(y[:, k].unique()[:, None])
    return found


def _johnson(y: Tensor, curved: Tensor) -> JohnsonSU:
    """Returns the S_U of greatest likelihood of each column; almost the identity of others.

    So it is of columns whose quartiles coincide, and of those without a greatest likelihood.
    """
    theta = straight = y.new_tensor([0, STRAIGHT, 0, STRAIGHT])[:, None].repeat(1, y.shape[1])
    if curved.any() and (varied := _spread(y) > 0).any():
        found = straight.clone()
        found[:, varied] = _fitted(y[:, varied])
        theta = torch.where(curved & _sound(found), found, straight)
    return JohnsonSU(*theta)


def _sound(theta: Tensor) -> Tensor:
    """Returns whether all of ξ, λ, γ and δ are finite, and λ and δ positive, of each column."""
    return theta.isfinite().all(0) & (theta[[1, 3]] > 0).all(0)


def _fitted(y: Tensor) -> Tensor:
    """Returns ξ, λ, γ and δ of greatest likelihood, with shape (4, D).

    One column whose likelihood has no maximum spoils those that it is fitted with: then each half
    of the columns is fitted by itself.
    """
    found = _likeliest(y)
    if y.shape[1] > 1 and not _sound(found).all():
        found = torch.cat([_fitted(half) for half in y.tensor_split(2, 1)], 1)
    return found


def _likeliest(y: Tensor) -> Tensor:
    """Returns what L-BFGS comes to from one start, of all columns together."""
    theta = y.new_zeros(4, y.shape[1])
    theta[[1, 3]] = math.log(2.0)
    theta.requires_grad_()
    optimizer = eager(torch.optim.LBFGS)(
        [theta], max_iter=60, tolerance_change=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        """Returns −log p, summed over columns, after its gradient is taken."""
        optimizer.zero_grad()
        xi, lam, gamma, delta = theta
        z = (y - xi) * (-lam).exp()
        u = gamma + delta.exp() * torch.asinh(z)
        log_p = _log_normal(u) + delta - lam - 0.5 * torch.log1p(z * z)
        # Towards λ = ∞ the likelihood of a normal column is flat.
        loss = -log_p.mean(0).sum() + 1e-4 * (lam.square() + delta.square()).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    xi, lam, gamma, delta = theta.detach()
    return torch.stack([xi, lam.exp(), gamma, delta.exp()])


def _log_normal(u: Tensor) -> Tensor:
    return -0.5 * (u * u + math.log(2 * math.pi))
