r"""The chain in front of a flow: dequantization, logit, standardizing or whitening.

Linear layers are free in an energy-based flow, and the Fisher divergence, unlike the likelihood,
is not invariant to them: matching scores of *whitened* data starts from the Gaussian baseline
and weighs every direction alike. With training mean m, standard deviations S (diagonal) and
correlations R, shrunk to :math:`(1 - \rho) R + \rho I`, whitening is
:math:`y = R^{-1/2} S^{-1} (x - m)`; it does not depend on the features' units. Where ρ is left
open it is that of a list whose Gaussian, fitted to four fifths of the rows, is likeliest on the
last fifth: one eigendecomposition, as all ρ share R's eigenvectors.

Integer data of ``levels`` values are first completed by uniform noise, divided by ``levels``,
moved off the edges by ``margin`` and carried to the real line by logit(x) / ``scale``. That logit
ends just beyond the data. *Extended*, it goes on as its tangents at the ends of their range, so
that a point which noise moves out of it has a density too; the density then has mass outside
[0, levels], and stays a lower bound of the integers' likelihood.

In front of real columns stand the steps of ``marginals``, if they are asked for; behind the
whitening, where *gaussianized*, what carries each direction near a normal one.
"""

__all__ = ["Preprocessing", "SingularCovariance", "build", "fit", "gaussian"]

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import bases, marginals
from .bijections import Affine, Bijection, Dense, Dequantize, Logit
from .errors import BadInput
from .files import load_tensors, save_tensors
from .flow import Flow
from .randomness import RowGenerator
from .tables.batches import Split
from .tables.levels import COARSEST, called

NORMALIZE = ("none", "standardize", "whiten")

SHRINKAGES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.3)
HELD = 5
"""One row of so many is left out to choose the shrinkage."""


class SingularCovariance(BadInput):
    """No Gaussian has the greatest likelihood, and no whitening exists without shrinkage."""


@dataclass(frozen=True)
class Preprocessing:
    """A chain of bijections, and how to build it again.

    Attributes:
        layers: The chain, from raw data on.
        spec: For ``build``.
        columns: What was found of a table's columns, if that was just fitted.
        shrinkage: ρ of the whitening, if that was just fitted.
        base: A base that was fitted behind the chain, for a flow that starts as it.
    """

    layers: list[Bijection]
    spec: dict[str, Any]
    columns: marginals.Marginals | None = None
    shrinkage: float | None = None
    base: bases.Base | None = None

    def __iter__(self) -> Iterator[Bijection]:
        return iter(self.layers)

    def save(self, path: Path) -> None:
        """Writes the chain to one file of safetensors; O(D²) bytes if it whitens."""
        spec = {**self.spec, "base": self.base and self.base.spec}
        save_tensors(self._modules.state_dict(), path, spec=json.dumps(spec))

    @classmethod
    def load(cls, path: Path) -> "Preprocessing":
        """Returns the chain that :meth:`save` wrote, equal to the bit."""
        state, metadata = load_tensors(path)
        spec = json.loads(metadata["spec"])
        base = spec.pop("base")
        chain = replace(build(spec), base=base and bases.build(base).double())
        chain._modules.load_state_dict(state)
        return chain

    @property
    def _modules(self) -> nn.ModuleList:
        return nn.ModuleList([*self.layers, *([self.base] if self.base else [])])


def fit(
    split: Split,
    *,
    normalize: str = "whiten",
    margin: float | None = 1e-6,
    scale: float = 1.0,
    extended: bool = False,
    shrinkage: float | None = 0.0,
    seed: int = 0,
    batch_size: int = 1024,
    grids: bool = False,
    tails: bool = False,
    bounds: marginals.Bounds | None = None,
    gaussianize: bool = False,
    names: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Preprocessing:
    """Fits the preprocessing of a training split in one streamed pass; O(N D²) if whitening.

    Arguments:
        split: The training split; its columns of categories are dequantized.
        normalize: ``none``, ``standardize`` (mean and variance) or ``whiten`` (covariance).
        margin: How far integer data are moved off 0 and 1 before the logit; None: no logit.
        scale: The divisor of the logit.
        extended: Whether the logit goes on, linearly, outside the range of the data.
        shrinkage: ρ in [0, 1), the share of the identity in the correlations; None: the one
            that rows left out choose.
        seed: Where the dequantization noise of the pass comes from.
        batch_size: Rows at a time.
        grids: Whether columns of reals that lie on grids are dequantized by their steps.
        tails: Whether bounds and tails of columns of reals are fitted; see ``marginals``.
        bounds: Bounds of columns of reals that are known.
        gaussianize: Whether directions with heavy or skewed tails are carried near normal ones,
            behind all else: ``marginals.gaussianized``.
        names: What features are called in messages; None: by their numbers.
        dtype: The type in which the chain will be used.

    Raises:
        SingularCovariance: if it is, and ``shrinkage`` is 0.
        BadInput: if a feature is constant, or ``dtype`` cannot tell most of its values apart: far
            from 0, or beside outliers.
    """
    if normalize not in NORMALIZE:
        raise ValueError(f"normalize: found {normalize!r}, expected one of {NORMALIZE}")
    real, columns = split.levels is None, None
    if real:
        rows = next(split.shuffled(min(len(split), marginals.GRID_ROWS), seed=seed)).x.double()
        some = rows[: marginals.enough(split.width)].cpu()
        _check_resolved(some, torch.zeros_like(some), dtype, names)
        columns = _columns(
            split, rows, grids=grids, tails=tails, bounds=bounds, names=names, seed=seed
        )
    spec = {"width": split.width, "levels": split.levels, "margin": margin, "scale": scale,
            "extended": extended, "columns": columns.spec if columns else []}  # fmt: skip
    layers, rho = [*columns.layers] if columns else _elementwise(**spec), None
    if normalize != "none":
        kept, held = _moments(split, layers, seed, batch_size, full=normalize == "whiten")
        whole = kept + held
        _check_varied(whole.variance > 0, names)
        if normalize == "whiten":
            rho = _chosen(kept, held) if shrinkage is None else shrinkage
        if real:
            elementwise = [*layers, *_normalizer(whole.mean, whole.variance, None)]
            _check_resolved(some, _errors(some, elementwise, dtype), dtype, names)
        layers += _fitted(whole, rho)
    last = _gaussianized(split, layers, seed) if gaussianize else []
    spec = {**spec, "normalize": normalize, "gaussianized": bool(last)}
    return Preprocessing([*layers, *last], spec, columns, rho)


def build(spec: dict[str, Any]) -> Preprocessing:
    """Builds the chain of a spec with placeholder statistics, to load a state into."""
    options, width = dict(spec), spec["width"]
    normalize, last = options.pop("normalize"), options.pop("gaussianized", False)
    layers = _elementwise(**options)
    if normalize != "none":
        root = torch.eye(width, dtype=torch.float64) if normalize == "whiten" else None
        mean, variance = (torch.full((width,), t, dtype=torch.float64) for t in (0, 1))
        layers += _normalizer(mean, variance, root)
    if last:
        layers += marginals.build(("standard", "tails"), width)
    return Preprocessing(layers, spec)


def gaussian(chain: Preprocessing) -> Flow:
    """Returns the Gaussian that a whitening chain carries to the standard one, in float64.

    It is the flow of no layer behind the chain. Without shrinkage it is the full-covariance
    Gaussian of greatest likelihood, of the logits where the chain has one.
    """
    return Flow((chain.spec["width"],), []).double().preprocessed(chain)


def _columns(
    split: Split,
    rows: Tensor,
    *,
    grids: bool,
    tails: bool,
    bounds: marginals.Bounds | None,
    names: Sequence[str] | None,
    seed: int,
) -> marginals.Marginals | None:
    """Returns the steps of columns by some rows in random order; None where there are none.

    Columns of categories have one always, others those that are asked for.
    """
    categories = torch.tensor(split.categories) > 0
    if not (grids or tails or bounds or categories.any()):
        return None
    first, last = split.ends
    _check_varied((first != last).cpu() | categories, names)
    return marginals.fit(
        rows,
        categories=split.categories,
        grids=grids,
        tails=tails,
        bounds=bounds,
        ends=(first, last),
        names=names,
        seed=seed,
    )


def _elementwise(
    width: int,
    levels: int | None,
    margin: float | None,
    scale: float,
    extended: bool = False,
    columns: Sequence[str] = (),
) -> list[Bijection]:
    if levels is None:
        return marginals.build(columns, width)
    if margin is None:
        return [Dequantize(levels), Affine(0.0, 1 / levels, (width,), dtype=torch.float64)]
    least = margin * (1 - 2 * margin) if extended else None
    return [Dequantize(levels), Logit(scale, upper=levels, inset=margin, margin=least)]


def _gaussianized(split: Split, layers: Sequence[Bijection], seed: int) -> list[Bijection]:
    """Returns what makes directions behind a chain normal, by some of the rows."""
    flow = Flow((split.width,), copy.deepcopy(layers), n_preprocessing=len(layers)).double()
    rows = next(split.shuffled(min(len(split), marginals.enough(split.width)), seed=seed)).x
    return marginals.gaussianized(
        flow.preprocess(rows, generator=RowGenerator(seed, "gaussianize"))
    )


def _fitted(moments: "_Moments", shrinkage: float | None) -> list[Bijection]:
    """Returns what whitens with a shrinkage, or standardizes without one."""
    root = None
    if shrinkage is not None:
        values, vectors = torch.linalg.eigh(moments.correlations(moments.variance))
        values = (1 - shrinkage) * values + shrinkage
        if not _regular(values):
            raise SingularCovariance(
                "shrinkage: found a singular covariance of the training split (features that "
                "depend linearly on others, or fewer rows than features), expected shrinkage > 0"
            )
        root = vectors * values.rsqrt() @ vectors.mT
    return _normalizer(moments.mean, moments.variance, root)


def _regular(values: Tensor) -> bool:
    """Returns whether the least eigenvalue is more than a rounding of the greatest."""
    return bool(values[0] > len(values) * torch.finfo(values.dtype).eps * values[-1])


def _chosen(kept: "_Moments", held: "_Moments") -> float:
    """Returns the shrinkage whose Gaussian, of the rows kept, is likeliest on those held out.

    With eigenvectors v of the correlations R that is the least Σ log λ + vᵀ H v / λ, where
    λ = (1 − ρ) vᵀ R v + ρ and H are the second moments of the rows held out.
    """
    if not held.count:
        return SHRINKAGES[-1]
    variance = (kept + held).variance
    values, vectors = torch.linalg.eigh(kept.correlations(variance))
    about = held.correlations(variance)
    delta = (held.mean - kept.mean) * variance.rsqrt()
    power = (vectors * ((about + torch.outer(delta, delta)) @ vectors)).sum(0)
    nll = {}
    for rho in SHRINKAGES:
        shrunk = (1 - rho) * values + rho
        if _regular(shrunk):
            nll[rho] = float((shrunk.log() + power / shrunk).sum())
    return min(nll, key=nll.__getitem__)


def _check_varied(varied: Tensor, names: Sequence[str] | None) -> None:
    if not varied.all():
        feature = int((~varied).nonzero()[0, 0])
        raise BadInput(
            f"normalize: found {called(feature, names)} constant on the training split, expected "
            "features that vary"
        )


def _normalizer(mean: Tensor, variance: Tensor, root: Tensor | None) -> list[Bijection]:
    standard = Affine(mean, variance.rsqrt(), mean.shape, dtype=torch.float64)
    return [standard] if root is None else [standard, Dense(root, None, trainable=False)]


def _errors(x: Tensor, layers: Sequence[Bijection], dtype: torch.dtype) -> Tensor:
    """Returns how far off rows come back from a chain, and an offset of 1 behind it, in a type.

    A flow's own layers have such offsets: they round as coarsely.
    """
    flow = Flow((x.shape[1],), copy.deepcopy(layers), n_preprocessing=len(layers)).to(dtype)
    y = flow.preprocess(x, generator=RowGenerator(0, "resolved"))
    return (flow.from_latent((y + 1) - 1) - x).abs()


def _check_resolved(
    x: Tensor, errors: Tensor, dtype: torch.dtype, names: Sequence[str] | None
) -> None:
    """Checks that errors, beside those of rounding to a type, are small where most values lie."""
    errors = errors.maximum(torch.finfo(dtype).eps * x.abs())
    for k, (column, error) in enumerate(zip(x.mT, errors.mT, strict=True)):
        low, high = _bulk(column)
        step = float(error[(low <= column) & (column <= high)].median())
        if high > low and not step <= COARSEST * (high - low):
            name = str(dtype).removeprefix("torch.")
            wider = "" if dtype == torch.float64 else "float64, or "
            raise BadInput(
                f"dtype: found {name}, which cannot resolve {called(k, names)} (half of its "
                f"values lie within {(high - low) / 2:.3g} of {(low + high) / 2:.6g}, all in "
                f"[{column.min():.6g}, {column.max():.6g}], and errors are about {step:.2g}), "
                f"expected {wider}values nearer to 0 and to each other: subtract an offset, or "
                "leave out outliers"
            )


def _bulk(column: Tensor) -> tuple[float, float]:
    """Returns the ends of the narrowest interval with half of a column's distinct values."""
    values = column.unique()
    half = len(values) // 2
    k = (values[half:] - values[: len(values) - half]).argmin()
    return float(values[k]), float(values[k + half])


class _Moments(NamedTuple):
    """Rows' number, mean, and sum of squares about it: (D, D), or (D,) of variances alone."""

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, y: Tensor, *, full: bool) -> "_Moments":
        mean = y.mean(0) if len(y) else y.new_zeros(y.shape[1])
        centred = y - mean
        return cls(len(y), mean, centred.mT @ centred if full else (centred**2).sum(0))

    def __add__(self, other: "_Moments") -> "_Moments":
        """Returns the moments of both sets of rows, by Chan's update."""
        total = self.count + other.count
        if not total:
            return self
        delta, weight = other.mean - self.mean, other.count / total
        outer = torch.outer(delta, delta) if self.squares.ndim == 2 else delta**2
        squares = self.squares + other.squares + self.count * weight * outer
        return _Moments(total, self.mean + weight * delta, squares)

    @property
    def variance(self) -> Tensor:
        full = self.squares.ndim == 2
        return (self.squares.diagonal() if full else self.squares) / self.count

    def correlations(self, variance: Tensor) -> Tensor:
        """Returns the covariance in units in which ``variance`` is 1."""
        return self.squares / self.count * torch.outer(variance, variance).rsqrt()


def _moments(
    split: Split, layers: Sequence[Bijection], seed: int, batch_size: int, *, full: bool
) -> tuple[_Moments, _Moments]:
    """Returns the moments, in float64, of all rows but each fifth, and of those."""
    flow = Flow((split.width,), copy.deepcopy(layers), n_preprocessing=len(layers)).double()
    first = 0
    kept = held = _Moments.of(torch.zeros(0, split.width, dtype=torch.float64), full=full)
    for rows, _ in split.batches(batch_size):
        y = flow.preprocess(rows, generator=RowGenerator(seed, "preprocess", first=first))
        out = torch.arange(first, first + len(y)) % HELD == HELD - 1
        kept += _Moments.of(y[~out], full=full)
        held += _Moments.of(y[out], full=full)
        first += len(y)
    return kept, held
