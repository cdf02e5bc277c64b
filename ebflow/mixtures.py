r"""Mixtures of Gaussians fitted by expectation maximization: the classical density beside a flow.

The maximization is scikit-learn's. How many components there are, and whether their covariances
are full or diagonal, is decided by rows that are held out: the number goes up until two in
succession are no better than the best. A component that collapses onto a few rows has an enormous
likelihood of those, and is judged by the others alone.

The work is bounded by a count of operations, never by a clock, so that a seed gives the same
mixture on a busy machine. An iteration on N rows costs about :math:`N K (4 D^2 + 300 D + 1400)`
operations with full covariances, plus :math:`3 K D^3`, and :math:`N K (20 D + 1400)` with
diagonal ones: the terms below :math:`D^2` stand for what moves memory instead of multiplying.
"""

__all__ = ["COMPONENTS", "ConditionedMixture", "Search", "Trial", "behind", "density",
           "fit_components", "fit_mixture", "load", "regression", "save", "search"]  # fmt: skip

import json
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .bases import Base, GaussianMixture, build
from .files import load_tensors, save_tensors
from .flow import Flow
from .preprocessing import Preprocessing
from .randomness import Generator, RowGenerator, normal, uniform
from .randomness import generator as derive
from .tables.batches import Split

COMPONENTS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of components that are tried."""

ROWS = 50_000
"""Most rows of a maximization."""

NUMBERS = 1 << 25
"""Most numbers of these rows: 256 MiB."""

BUDGET = 4e11
"""Most operations of all maximizations: about 8 s of one core."""

LEAST, MOST = 10, 100
"""Fewest iterations that are worth a start, and most that are made."""

START = 20
"""The start by K-means, in iterations with diagonal covariances."""

FLOOR = 1e-6
"""What is added to variances of standardized columns, as scikit-learn does."""

PATIENCE = 2
"""Candidates in succession that are no better before the search ends."""

KINDS = ("diag", "full")
"""Kinds of covariances in the order in which they are tried, by scikit-learn's names."""

log = logging.getLogger("ebflow.mixtures")


@dataclass(frozen=True)
class Trial:
    """A candidate that was fitted.

    Attributes:
        components: The number K of Gaussians.
        kind: ``full`` or ``diag``.
        nll: The mean negative log-likelihood of the validation rows, in nats.
        iterations: Iterations of the maximization.
    """

    components: int
    kind: str
    nll: float
    iterations: int


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        mixture: The best mixture by the validation rows, in float64.
        best: Its trial.
        trials: All trials, in order.
        rows: Training rows used.
        left_out: Candidates that were beyond the budget, as (K, kind).
    """

    mixture: GaussianMixture
    best: Trial
    trials: tuple[Trial, ...]
    rows: int
    left_out: tuple[tuple[int, str], ...]


def fit_mixture(
    x: Tensor,
    validation: Tensor,
    *,
    components: Sequence[int] = COMPONENTS,
    seed: int = 0,
    rows: int = ROWS,
) -> GaussianMixture:
    """Returns the mixture of Gaussians that is best on rows held out.

    Arguments, cost and errors are those of ``search``.

    Example:
        >>> mixture = ebflow.fit_mixture(x[:40], x[40:])
        >>> mixture.log_prob(x.double()).shape
        torch.Size([60])
    """
    return search(x, validation, components=components, seed=seed, rows=rows).mixture


def search(
    x: Tensor,
    validation: Tensor,
    *,
    components: Sequence[int] = COMPONENTS,
    seed: int = 0,
    rows: int = ROWS,
    budget: float = BUDGET,
    given: int = 0,
) -> Search:
    """Fits mixtures of more and more Gaussians, and chooses by the validation rows.

    Diagonal covariances have half of the budget, full ones what they leave. Candidates beyond it
    are left out, and told in the log. One diagonal Gaussian is always fitted.

    Cost: at most ``budget`` operations, and O(N D) memory.

    Arguments:
        x: Training rows with shape (N, D), behind the preprocessing; their columns
            are standardized here besides, so that the covariances' floor, 1e-6, is relative.
        validation: Rows with shape (M, D) that are held out.
        components: Numbers of Gaussians, in ascending order; those above N are left out.
        seed: Where the rows and the starts come from.
        rows: Most training rows that are used, drawn at random where there are more.
        budget: Most operations.
        given: The number of leading columns that are contexts: mixtures are of all columns, and
            are judged by the others given these.

    Raises:
        ValueError: if shapes do not agree, a value is not finite, or numbers do not ascend.
    """
    _check(x, validation, components)
    x, held = _drawn(x, rows, seed), validation.detach().cpu().double()
    mean, scale = _standard(x)
    counts = [k for k in components if k <= len(x)]
    walk = _Walk(((x - mean) / scale).numpy(), (held - mean) / scale, seed, given)
    for kind, share in zip(KINDS, (0.5, 1.0), strict=True):
        walk.up(kind, counts, budget * share)
    if walk.left_out:
        left = ", ".join(f"{k} {kind}" for k, kind in walk.left_out)
        log.info("mixture of Gaussians: beyond the budget of %.2g operations: %s", budget, left)
    offset = float(scale[given:].log().sum())
    trials = tuple(replace(trial, nll=trial.nll + offset) for trial in walk.trials)
    best = min(trials, key=lambda trial: trial.nll)
    mixture = _mixture(walk.model, mean, scale)
    return Search(mixture, best, trials, len(x), tuple(walk.left_out))


def fit_components(
    x: Tensor, count: int, *, ridge: float = FLOOR, seed: int = 0, steps: int = MOST
) -> GaussianMixture:
    """Returns a mixture of so many Gaussians with full covariances, in float64 on the CPU.

    Arguments:
        x: Rows with shape (N, D).
        count: The number K of Gaussians, at most N.
        ridge: What is added to variances of standardized columns.
        seed: Where the start comes from.
        steps: Most iterations.
    """
    x = x.detach().cpu().double()
    mean, scale = _standard(x)
    return _mixture(
        _fitted(((x - mean) / scale).numpy(), count, "full", steps, seed, ridge), mean, scale
    )


def behind(
    chain: Preprocessing, split: Split, *, most: int = ROWS, seed: int = 0, batch_size: int = 1024
) -> Tensor:
    """Returns rows of a split behind a preprocessing, with shape (N, C + D), in float64.

    Their contexts stand in front of them. One streamed pass; integers have the noise with which
    the preprocessing was fitted.

    Arguments:
        chain: The preprocessing.
        split: The split.
        most: Most rows, drawn at random where there are more, and fewer where they are wide.
        seed: Where the rows and the noise come from.
        batch_size: Rows at a time.
    """
    flow = Flow((split.width,), []).double().preprocessed(chain)
    wanted, first, parts = _numbers(len(split), _most(split.width, most), seed), 0, []
    for rows, context in split.batches(batch_size):
        here = wanted[(wanted >= first) & (wanted < first + len(rows))] - first
        if len(here):
            noise = RowGenerator(seed, "preprocess", first=first)
            y = flow.preprocess(rows, generator=noise)
            parts.append((y if context is None else torch.cat([context, y], 1))[here])
        first += len(rows)
    return torch.cat(parts)


def density(mixture: GaussianMixture, chain: Preprocessing) -> Flow:
    """Returns the density of raw data that a mixture behind a preprocessing is, in float64.

    A mixture of more features than the data has contexts in front, and is one given these.
    """
    width = chain.spec["width"]
    given = mixture.size - width
    base = ConditionedMixture(mixture, given) if given else mixture
    return Flow((width,), [], base=base, context=given).double().preprocessed(chain)


def regression(x: Tensor, given: int) -> GaussianMixture:
    """Returns the Gaussian of rows given their first C columns, by least squares.

    It is a mixture of one component, in float64, with what contexts do to the rest; where these
    depend on each other, as those of one category do, it is the least such map. The residuals'
    covariance has the floor of all mixtures.
    """
    mean, scale = _standard(x.double())
    z = (x.double() - mean) / scale
    covariance = z.mT @ z / len(z)
    own, cross = covariance[:given, :given], covariance[given:, :given]
    line = cross @ torch.linalg.pinv(own, rtol=1e-10, hermitian=True)
    rest = covariance[given:, given:] - line @ cross.mT
    rest = rest + FLOOR * torch.eye(len(rest)).to(rest)
    whole = torch.eye(len(mean)).to(mean)
    whole[given:, :given], whole[:given, given:] = line, line.mT
    whole[given:, given:] = rest + line @ line.mT
    weights, means = torch.ones(1).to(mean), mean[None]
    return GaussianMixture(weights, means, (whole * torch.outer(scale, scale))[None])


def save(mixture: GaussianMixture, path: Path) -> None:
    """Writes a mixture to one file of safetensors."""
    save_tensors(mixture.state_dict(), path, spec=json.dumps(mixture.spec))


def load(path: Path) -> GaussianMixture:
    """Returns the mixture that ``save`` wrote, equal to the bit."""
    state, metadata = load_tensors(path)
    mixture = build(json.loads(metadata["spec"])).to(state["means"].dtype)
    mixture.load_state_dict(state)
    return mixture


def operations(count: int, rows: int, width: int, kind: str) -> float:
    """Returns about how many operations an iteration takes, what moves memory included."""
    if kind == "diag":
        return rows * count * (20.0 * width + 1400)
    return rows * count * (4.0 * width**2 + 300 * width + 1400) + 3.0 * count * width**3


class _Walk:
    """Goes up through numbers of components, kind by kind, within a budget."""

    def __init__(self, x: np.ndarray, held: Tensor, seed: int, given: int = 0) -> None:
        self.x, self.held, self.seed, self.given = x, held, seed, given
        self.spent, self.best, self.model = 0.0, math.inf, None
        self.trials: list[Trial] = []
        self.left_out: list[tuple[int, str]] = []

    def up(self, kind: str, counts: Sequence[int], budget: float) -> None:
        """Tries numbers until two in succession are no better than the best of their kind."""
        best, stale = math.inf, 0
        for count in counts:
            steps = self._affordable(count, kind, budget)
            if steps < LEAST and (count, kind) != (counts[0], KINDS[0]):
                self.left_out.append((count, kind))
                continue
            trial = self._try(count, kind, max(steps, LEAST))
            best, stale = (trial.nll, 0) if trial.nll < best else (best, stale + 1)
            if stale == PATIENCE:
                return

    def _affordable(self, count: int, kind: str, budget: float) -> int:
        """Returns how many iterations the budget has left for a candidate, at most ``MOST``."""
        left = budget - self.spent - self._start(count)
        return min(MOST, int(left / operations(count, *self.x.shape, kind)))

    def _start(self, count: int) -> float:
        return START * operations(count, *self.x.shape, "diag")

    def _try(self, count: int, kind: str, steps: int) -> Trial:
        model = _fitted(self.x, count, kind, steps, self.seed)
        self.spent += self._start(count)
        self.spent += model.n_iter_ * operations(count, *self.x.shape, kind)
        zero = torch.zeros(self.x.shape[1], dtype=torch.float64)
        mixture = _mixture(model, zero, zero + 1)
        nll = float(mixture.conditional_energy(self.held, self.given).mean())
        trial = Trial(count, kind, nll, model.n_iter_)
        self.trials.append(trial)
        if nll < self.best:
            self.best, self.model = nll, model
        return trial


def _fitted(
    x: np.ndarray, count: int, kind: str, steps: int, seed: int, ridge: float = FLOOR
) -> Any:  # noqa: ANN401
    """Returns scikit-learn's mixture after at most so many iterations."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as Mixture

    start = derive(seed, "mixture", kind, count).initial_seed() % 2**32
    model = Mixture(
        count, covariance_type=kind, max_iter=steps, random_state=start, reg_covar=ridge
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x)


def _mixture(model: Any, mean: Tensor, scale: Tensor) -> GaussianMixture:  # noqa: ANN401
    """Returns the mixture of scale · z + mean, for the one of z that was fitted."""
    found = (model.weights_, model.means_, model.covariances_)
    weights, means, covariances = (torch.from_numpy(np.ascontiguousarray(a)) for a in found)
    square = torch.outer(scale, scale) if covariances.ndim == 3 else scale.square()
    return GaussianMixture(weights, means * scale + mean, covariances * square)


def _standard(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the columns' means and deviations; 1 for a constant column."""
    mean, deviation = x.mean(0), x.std(0, correction=0)
    return mean, torch.where(deviation > 0, deviation, 1.0)


def _drawn(x: Tensor, most: int, seed: int) -> Tensor:
    """Returns at most so many rows, in their order, in float64 on the CPU."""
    x = x.detach()
    return x[_numbers(len(x), _most(x.shape[1], most), seed).to(x.device)].cpu().double()


def _most(width: int, rows: int) -> int:
    return min(rows, max(2, NUMBERS // width))


def _numbers(count: int, most: int, seed: int) -> Tensor:
    """Returns the numbers of at most so many rows, in order."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=derive(seed, "mixture", "rows"))[:most].sort().values


def _check(x: Tensor, validation: Tensor, components: Sequence[int]) -> None:
    if x.ndim != 2 or len(x) < 2 or validation.ndim != 2 or not len(validation):
        found = f"{tuple(x.shape)}, {tuple(validation.shape)}"
        raise ValueError(f"x, validation: found shapes {found}, expected (N, D), (M, D)")
    if x.shape[1] != validation.shape[1]:
        raise ValueError(
            f"validation: found {validation.shape[1]} columns, expected {x.shape[1]} as in x"
        )
    for name, rows in (("x", x), ("validation", validation)):
        if not bool(rows.isfinite().all()):
            raise ValueError(f"{name}: found a value that is not finite, expected finite numbers")
    if not components or sorted(set(components)) != list(components) or components[0] < 1:
        raise ValueError(f"components: found {components}, expected ascending counts from 1 on")


class ConditionedMixture(Base):
    r"""Creates a mixture of Gaussians over contexts and data, given the contexts.

    .. math:: p(x \mid c) = \sum_k r_k(c) \, N(x; m_k(c), S_k), \qquad
        r_k(c) \propto w_k N(c; \mu_{k,c}, \Sigma_{k,cc}), \quad
        m_k(c) = \mu_{k,x} + \Sigma_{k,xc} \Sigma_{k,cc}^{-1} (c - \mu_{k,c})

    with the Schur complements :math:`S_k`; O(K B (C + D)²) with full covariances. One component is
    linear regression with Gaussian residuals.

    Arguments:
        joint: The mixture over (c, x), with shape (C + D,).
        count: The number C of elements of a context.
    """

    def __init__(self, joint: GaussianMixture, count: int) -> None:
        super().__init__()
        if not 0 < count < joint.size:
            raise ValueError(f"count: found {count}, expected 1 … {joint.size - 1}")
        self.joint, self.count = joint, count

    def energy(self, x: Tensor) -> Tensor:
        """Raises ValueError: it is a density only given a context."""
        raise ValueError(f"context: found None, expected shape (*, {self.count})")

    def draw(self, shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
        """Raises ValueError, as ``energy``."""
        return self.energy(like)

    def condition(self, context: Tensor) -> "Base":
        """Returns the density given contexts with shape (B, C)."""
        return _Conditioned(self.joint, context)


class _Conditioned(Base):
    """The density whose row i has the context i mod B."""

    def __init__(self, joint: GaussianMixture, context: Tensor) -> None:
        super().__init__()
        self.joint, self.context = joint, context

    def energy(self, x: Tensor) -> Tensor:
        """Returns −log p(x | c) with shape (R B,)."""
        rows = torch.cat([self._contexts(len(x)), x.flatten(1)], 1)
        return self.joint.conditional_energy(rows, self.context.shape[1])

    def draw(self, shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
        """Returns samples with shape (R B, *event)."""
        joint, c = self.joint, self._contexts(shape[0])
        count = c.shape[1]
        lead = (c - joint.means[:, None, :count])[..., None]
        full = joint.triangles if joint.full else joint.roots.expand(-1, joint.size).diag_embed()
        own, cross, inner = (
            full[:, :count, :count],
            full[:, count:, :count],
            full[:, count:, count:],
        )
        z = (own[:, None] @ lead).squeeze(-1)
        shares = joint._log_joint(z).softmax(0).cumsum(0).mT.contiguous()
        u = uniform((len(c), 1), like, generator).to(shares)
        k = torch.searchsorted(shares, u, right=True).clamp(max=len(full) - 1).squeeze(1)
        noise = normal((len(c), joint.size - count), like, generator).to(shares)
        pull = noise[..., None] - cross[k] @ lead[k, torch.arange(len(c))]
        x = torch.linalg.solve_triangular(inner[k], pull, upper=False).squeeze(-1)
        return (joint.means[k, count:] + x).to(like).view(shape)

    def _contexts(self, rows: int) -> Tensor:
        return self.context.repeat(rows // len(self.context), 1)
