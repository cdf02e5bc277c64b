r"""Preprocessing of a flow: dequantization, logit, standardization or whitening.

Linear layers are free in an energy-based flow. The Fisher divergence, unlike the likelihood, is
not invariant to them: matching scores of *whitened* data starts from the Gaussian baseline and
weighs every direction alike. With the mean m of the training rows, standard deviations S
(diagonal) and correlations R, shrunk to :math:`(1 - \rho) R + \rho I`, there are

* ``standardize``: :math:`y = S^{-1} (x - m)`;
* ``whiten``: :math:`y = R^{-1/2} S^{-1} (x - m)`, which does not depend on the features' units;
* ``cholesky``: :math:`y = L^{-1} S^{-1} (x - m)` with :math:`R = L L^\top`, which preserves the
  order of features for autoregressive layers: :math:`y_i` depends on :math:`x_1 \dots x_i`;
* ``auto``: ``cholesky`` if features nearly depend on others (R has an eigenvalue below 0.01, or
  0.001 from ``MANY_COLUMNS`` features on), else ``standardize``.

ρ is fixed, or the one of ``SHRINKAGES`` that is best on held-out rows. Integers of ``levels``
values are dequantized, and mapped to the real line by logit(x) / ``scale``. The columns of tables
are first treated by ``marginals``.
"""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import bases, marginals
from .bijections import Affine, Bijection, Dense, Dequantize, Logit
from .conditioning import ConditionedMixture
from .errors import BadInput
from .files import load_tensors, save_tensors
from .flow import Flow
from .randomness import RowGenerator
from .recipes import BUDGET, MANY_COLUMNS
from .tables.batches import Split
from .tables.column import COARSEST
from .tables.rows import sampled

NORMALIZE = ("none", "standardize", "whiten", "cholesky", "auto")
DEPENDENT, NEARLY = 1e-3, 1e-2  # Least eigenvalues of correlations of (nearly) dependent columns
SHRINKAGES = (0.0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5,
              0.7, 0.85, 0.95, 1.0)  # fmt: skip
TREATMENT = ("grids", "tails", "exact", "bounds", "names", "seed")  # Options of ``marginals.fit``
HELD = 5  # One row of so many is held out to choose the shrinkage
BATCH = 1024  # Rows at a time
MOMENTS = 1 << 18  # Rows of means and covariances, or 1000 D
QUANTILES = 100_000  # Rows of quantiles of columns
RESOLVED = 100  # Units of rounding that make 1 % of a standard deviation in a whitened direction


class SingularCovariance(BadInput):
    """No Gaussian has the greatest likelihood, and no whitening exists without shrinkage."""


@dataclass(frozen=True)
class Preprocessing:
    """Bijections from raw data to the input of a flow."""

    layers: list[Bijection]
    spec: dict[str, Any]  #: The argument of ``build``
    #: The treatment of a table's columns, if it was just fitted
    columns: marginals.Marginals | None = None
    shrinkage: float | None = None  #: ρ of the whitening, if it was just fitted
    #: A base that was fitted to preprocessed rows, for a flow that starts as it
    base: bases.Base | None = None

    def __iter__(self) -> Iterator[Bijection]:
        return iter(self.layers)

    @property
    def architecture_options(self) -> dict[str, Any]:
        """The levels of the data, as options of an architecture that models them exactly."""
        if pixels := self.spec.get("pixels"):
            return {"values": len(pixels), "counts": pixels}
        counts = self.spec.get("counts") or []
        if not any(counts):
            return {}
        return {"categories": [len(count) for count in counts], "counts": [*filter(None, counts)]}

    def save(self, path: Path) -> None:
        """Writes one file of safetensors: O(D²) bytes with whitening."""
        spec = {**self.spec, "base": self.base and self.base.spec}
        save_tensors(self._modules.state_dict(), path, spec=json.dumps(spec))

    @classmethod
    def load(cls, path: Path) -> "Preprocessing":
        """Returns the preprocessing that :meth:`save` wrote, equal to the bit."""
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
    shrinkage: float | None = 0.0,
    seed: int = 0,
    grids: bool = False,
    tails: bool = False,
    exact: bool = False,
    pixels: bool = False,
    bounds: marginals.Bounds | None = None,
    gaussianize: bool = False,
    names: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Preprocessing:
    """Fits the preprocessing of a training split by random rows of it, ``MOMENTS`` at most.

    Arguments:
        split: The training split.
        normalize: ``none``, ``standardize``, ``whiten``, ``cholesky`` or ``auto``.
        margin: Distance of integers from 0 and 1 before the logit; None: no logit.
        scale: The divisor of the logit.
        shrinkage: ρ in [0, 1], the share of the identity in the correlations; None: chosen by
            held-out likelihood.
        grids: True to look for grids, levels and atoms in columns of reals.
        tails: True to fit bounds and tails of columns of reals. They bend linear dependences:
            ``MANY_COLUMNS`` columns, and fewer with an eigenvalue below 0.001, go without them if
            a Gaussian then predicts training rows better.
        exact: True for a flow with exact categories: they stay codes, as do columns of reals of
            few values if ``grids`` is true.
        pixels: True for a flow with exact probabilities of integers: they stay as they are,
            whatever ``normalize`` is.
        bounds: Known bounds of columns of reals.
        gaussianize: True to map directions with heavy or skewed tails to normal ones at last.
        names: The names of features in messages; None: their numbers.
        dtype: The dtype of the flow.

    Raises:
        SingularCovariance: if the covariance is singular, and ``shrinkage`` fixed.
        BadInput: if a feature is constant, or ``dtype`` cannot resolve most of its values beside
            outliers.
    """
    options = SimpleNamespace(**locals())
    _check_normalize(normalize)
    if pixels and split.levels:
        spec = {"width": split.width, "levels": split.levels, "normalize": "none"}
        values = split.some(marginals.enough(split.width), seed).x.flatten().long()
        counts = torch.bincount(values, minlength=split.levels).tolist()
        return Preprocessing([Dequantize(split.levels)], spec | {"pixels": counts})
    if split.levels is not None:
        return _fitted(split, None, options)
    rows = split.some(marginals.DETECTION * marginals.enough(split.width), seed).x.double().cpu()
    chain = _fitted(split, rows, options)
    if not tails:
        return chain
    if split.width < MANY_COLUMNS:
        if normalize in NORMALIZE[:2] or not _depends(rows[:, ~_as_is(chain.spec)]):
            return chain
        if chain.spec["normalize"] == "standardize":  # tails have hidden the dependence
            options.normalize = "cholesky"
            chain = _fitted(split, rows, options)
    try:
        options.tails = False
        plain = _fitted(split, rows, options)
    except BadInput:  # outliers whose tails have to be fitted
        return chain
    some = split.some(marginals.enough(split.width), seed).x
    return max(chain, plain, key=lambda one: float(density(one).log_prob(some).mean()))


def _fitted(split: Split, rows: Tensor | None, options: SimpleNamespace) -> Preprocessing:
    """Returns the preprocessing with one treatment of columns, of reals if there are ``rows``.

    The ``options`` are the arguments of ``fit``.
    """
    normalize, names, dtype = options.normalize, options.names, options.dtype
    columns = None if rows is None else _columns(split, rows, options)
    spec = {"width": split.width, "levels": split.levels,
            "margin": options.margin, "scale": options.scale,
            "columns": columns.spec if columns else {},
            "counts": columns.counts if columns and options.exact else []}  # fmt: skip
    layers, rho = columns.layers[:] if columns else _elementwise(spec), None
    if normalize != "none":
        full = normalize != "standardize"
        kept, held = _moments(split, layers, options.seed, _as_is(spec), full=full)
        whole = kept + held
        _check_varied(whole.variance > 0, names)
        if rows is not None:
            _check_resolved(rows[: marginals.enough(split.width)], layers, whole, dtype, names)
        if normalize == "auto":
            least = torch.linalg.eigvalsh(whole.correlations(whole.variance))[0]
            most = DEPENDENT if split.width >= MANY_COLUMNS else NEARLY
            normalize = "cholesky" if least < most else "standardize"
        if normalize != "standardize":
            fixed = options.shrinkage
            rho = _chosen(kept, held, dtype) if fixed is None else fixed
        layers += _normalizer(whole, normalize, rho, dtype)
    last = []
    if options.gaussianize:
        some = split.some(marginals.enough(split.width), options.seed).x
        noise = RowGenerator(options.seed, "gaussianize")
        directions = _flow(split.width, layers).double().preprocess(some, generator=noise)
        last = marginals.gaussianized(directions)
    spec |= {"normalize": normalize, "gaussianized": bool(last)}
    return Preprocessing([*layers, *last], spec, columns, rho)


def _as_is(spec: Mapping[str, Any]) -> Tensor:
    """Returns True for each column that is not normalized: exact categories."""
    return torch.tensor([bool(count) for count in spec["counts"]] or [False] * spec["width"])


def _depends(x: Tensor) -> bool:
    """Returns True if columns of rows (N, D) depend on others, but for outliers."""
    if x.shape[1] < 2:
        return False
    low, high = x[:QUANTILES].quantile(x.new_tensor([0.01, 0.99]), dim=0)
    x = x[((low <= x) & (x <= high)).all(1)]
    x = x[:, x.std(0) > 0] if len(x) > x.shape[1] else x[:, :0]
    return x.shape[1] > 1 and bool(torch.linalg.eigvalsh(torch.corrcoef(x.mT))[0] < DEPENDENT)


def build(spec: dict[str, Any]) -> Preprocessing:
    """Builds the preprocessing of a spec with placeholders, to load a state into."""
    normalize, width = spec["normalize"], spec["width"]
    _check_normalize(normalize)
    layers = _elementwise(spec)
    if normalize != "none":
        size = () if normalize == "standardize" else (width,)
        squares = torch.ones(width, *size, dtype=torch.float64)
        moments = _Moments(1, torch.zeros(width, dtype=torch.float64), squares)
        layers += _normalizer(moments, normalize, 1.0, torch.float64)
    if spec.get("gaussianized"):
        layers += marginals.build({"tails": []}, width)
    return Preprocessing(layers, spec)


def density(chain: Preprocessing) -> Flow:
    """Returns the base after a preprocessing, N(0, I) if there is none, as a density in float64.

    A whitening without a base is the Gaussian of greatest likelihood, of the logits if there are
    any. If the base is a mixture of more features than the data have, the first ones are contexts,
    and the density is conditional.
    """
    width, base = chain.spec["width"], chain.base
    contexts = 0 if base is None else base.size - width
    if contexts:
        base = ConditionedMixture(base, contexts)
    return Flow((width,), [], base=base, context=contexts).double().preprocessed(chain)


def transformed(
    split: Split, layers: Iterable[Bijection], seed: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yields batches of rows after a preprocessing, in float64, and their contexts.

    Integers have the noise with which a preprocessing of the same seed is fitted.
    """
    flow, first = _flow(split.width, layers).double(), 0
    for rows, context in split.batches(BATCH):
        noise = RowGenerator(seed, "preprocess", first=first)
        yield flow.preprocess(rows, generator=noise), context
        first += len(rows)


def _columns(split: Split, rows: Tensor, options: SimpleNamespace) -> marginals.Marginals | None:
    """Returns the treatment of columns, by rows in random order; None if nothing asks for it."""
    categories = torch.tensor(split.categories) > 0
    asked = options.grids or options.tails or options.bounds
    if options.normalize == "none" and not asked and not categories.any():
        return None
    first, last = split.ends
    _check_varied((first != last).cpu() | categories, options.names)
    used = {name: getattr(options, name) for name in TREATMENT}
    return marginals.fit(rows, categories=split.categories, ends=(first, last), **used)


def _elementwise(spec: Mapping[str, Any]) -> list[Bijection]:
    """Returns the layers before the normalization, those of columns as placeholders."""
    width, levels, margin = spec["width"], spec["levels"], spec.get("margin")
    if spec.get("pixels"):
        return [Dequantize(levels)]
    if levels is None:
        return marginals.build(spec["columns"], width)
    if margin is None:
        return [Dequantize(levels), Affine(0.0, 1 / levels, (width,), dtype=torch.float64)]
    return [Dequantize(levels), Logit(spec["scale"], upper=levels, margin=margin)]


def _flow(width: int, layers: Iterable[Bijection]) -> Flow:
    layers = copy.deepcopy(list(layers))
    return Flow((width,), layers, n_preprocessing=len(layers))


def _normalizer(
    moments: "_Moments", normalize: str, shrinkage: float | None, dtype: torch.dtype
) -> list[Bijection]:
    """Returns the layers that standardize, and whiten unless ``normalize`` is ``standardize``."""
    standard = Affine(moments.mean, moments.variance.rsqrt(), moments.mean.shape,
                      dtype=torch.float64)  # fmt: skip
    if normalize == "standardize":
        return [standard]
    values = torch.ones_like(moments.mean)
    vectors = torch.eye(len(values)).to(values)
    if shrinkage < 1:
        values, vectors = torch.linalg.eigh(moments.correlations(moments.variance))
        values = (1 - shrinkage) * values + shrinkage
    if not _regular(values, dtype):
        found = "a singular covariance of the training split (features that depend linearly on "
        found += "others, or fewer rows than features)"
        raise SingularCovariance(option="shrinkage", found=found, expected="shrinkage > 0")
    if normalize == "whiten":
        return [standard, Dense(vectors * values.rsqrt() @ vectors.mT, None, trainable=False)]
    # R = (Q Λ^½) (Q Λ^½)ᵀ, and a QR of the transpose has its Cholesky factor, to full precision.
    factor = torch.linalg.qr((vectors * values.sqrt()).mT).R.mT
    factor = factor * factor.diagonal().sign()
    inverse = torch.linalg.inv(factor).tril()
    return [standard, Dense(inverse, None, trainable=False)]


def _regular(values: Tensor, dtype: torch.dtype) -> bool:
    """Returns True if all directions with these variances are more than rounding errors."""
    own, used = torch.finfo(values.dtype).eps, torch.finfo(dtype).eps
    return bool(values[0] > max(len(values) * own * values[-1], (RESOLVED * used) ** 2))


def _chosen(kept: "_Moments", held: "_Moments", dtype: torch.dtype) -> float:
    """Returns the shrinkage whose Gaussian, fitted to ``kept`` rows, is likeliest on ``held``.

    With eigenvectors v of the correlations R, it minimizes Σ log λ + vᵀ H v / λ. Here λ = (1 − ρ)
    vᵀ R v + ρ, and H are the second moments of the held-out rows.
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
        if _regular(shrunk, dtype):
            nll[rho] = float((shrunk.log() + power / shrunk).sum())
    return min(nll, key=nll.__getitem__)


def _check_normalize(normalize: str) -> None:
    if normalize not in NORMALIZE:
        raise ValueError(f"normalize: found {normalize!r}, expected one of {NORMALIZE}")


def _check_varied(varied: Tensor, names: Sequence[str] | None) -> None:
    if not varied.all():
        feature = int((~varied).nonzero()[0, 0])
        column = names[feature] if names else feature
        found = "a constant on the training split, or a range whose square is 0 in float64"
        expected = "varying values: rescale the column, or leave it out"
        raise BadInput(option="normalize", column=column, found=found, expected=expected)


def _check_resolved(
    x: Tensor,
    layers: Sequence[Bijection],
    moments: "_Moments",
    dtype: torch.dtype,
    names: Sequence[str] | None,
) -> None:
    """Checks that rounding errors are small beside the distances of most values of a column.

    The errors are those of rows that come back from the standardized layers after an offset of 1.
    Offsets of a flow's own layers are as coarse.
    """
    flow = _flow(x.shape[1], [*layers, *_normalizer(moments, "standardize", None, dtype)])
    flow = flow.to(dtype)
    y = flow.preprocess(x, generator=RowGenerator(0, "resolved"))
    errors = (flow.from_latent((y + 1) - 1) - x).abs()
    quartiles = x.new_tensor([0.25, 0.75])
    for k, (column, error) in enumerate(zip(x.mT, errors.mT, strict=True)):
        low, high = column.unique().quantile(quartiles, interpolation="nearest").tolist()
        step = float(error[(low <= column) & (column <= high)].median())
        if high > low and not step <= COARSEST * (high - low):
            name = str(dtype).removeprefix("torch.")
            wider = "" if dtype == torch.float64 else "float64, or "
            raise BadInput(
                option="dtype",
                column=names[k] if names else k,
                found=f"{name}, which cannot resolve its values (half of them lie within "
                f"{(high - low) / 2:.3g} of {(low + high) / 2:.6g}, all in [{column.min():.6g}, "
                f"{column.max():.6g}], and errors are about {step:.2g})",
                expected=f"{wider}values nearer to each other: leave out outliers",
            )


class _Moments(NamedTuple):
    """Rows' number, mean, and sum of squares about it: (D, D), or (D,) of variances alone."""

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, y: Tensor, *, full: bool) -> "_Moments":
        mean = y.sum(0) / max(len(y), 1)
        centred = y - mean
        return cls(len(y), mean, centred.mT @ centred if full else (centred**2).sum(0))

    def __add__(self, other: "_Moments") -> "_Moments":
        """Returns the moments of both sets of rows, by Chan's update."""
        total = self.count + other.count
        delta, weight = other.mean - self.mean, other.count / max(total, 1)
        outer = torch.outer(delta, delta) if self.squares.ndim == 2 else delta**2
        squares = self.squares + other.squares + self.count * weight * outer
        return _Moments(total, self.mean + weight * delta, squares)

    @property
    def variance(self) -> Tensor:
        full = self.squares.ndim == 2
        return (self.squares.diagonal() if full else self.squares) / self.count

    def without(self, columns: Tensor) -> "_Moments":
        """Returns the moments with those of N(0, I) for some columns."""
        squares = torch.where(columns, float(self.count), self.squares)
        if self.squares.ndim == 2:
            apart = columns | columns[:, None]
            squares = torch.where(apart, self.count * torch.eye(len(columns)), self.squares)
        return self._replace(mean=torch.where(columns, 0.0, self.mean), squares=squares)

    def correlations(self, variance: Tensor) -> Tensor:
        """Returns the covariance in units in which ``variance`` is 1."""
        return self.squares / self.count * torch.outer(variance, variance).rsqrt()


def _moments(
    split: Split, layers: Sequence[Bijection], seed: int, as_is: Tensor, *, full: bool
) -> tuple[_Moments, _Moments]:
    """Returns the moments, in float64, of random rows but each fifth, and of those.

    They are those of all rows if a column is constant in the random ones. Columns that stay
    ``as_is`` have the moments of N(0, I).
    """
    most = max(MOMENTS, 1000 * split.width)
    few = 2 * most * split.row_bytes <= BUDGET
    for some in (sampled(split, most, seed, "moments") if few else split, split):
        first = 0
        kept = held = _Moments.of(torch.zeros(0, split.width, dtype=torch.float64), full=full)
        for y, _ in transformed(some, layers, seed):
            out = torch.arange(first, first + len(y)) % HELD == HELD - 1
            kept += _Moments.of(y[~out], full=full)
            held += _Moments.of(y[out], full=full)
            first += len(y)
        kept, held = kept.without(as_is), held.without(as_is)
        if some is split or ((kept + held).variance > 0).all():
            break
    return kept, held
