r"""Mixtures of Gaussians fitted by expectation maximization: the classical density beside a flow.

scikit-learn does the maximization. Validation rows choose the number of components and whether
covariances are full or diagonal: the number increases until two in succession are no better than
the best. A component that collapses onto a few rows has an enormous likelihood of those rows, and
other rows judge it.

The work is bounded by a count of operations, never by a clock, so that a seed gives the same
mixture on a busy machine. An iteration on N rows costs about :math:`N K (4 D^2 + 300 D + 1400)`
operations with full covariances, plus :math:`3 K D^3`, and :math:`N K (20 D + 1400)` with
diagonal ones. The terms below :math:`D^2` stand for code that moves memory instead of multiplying.
"""

__all__ = ["COMPONENTS", "ConditionedMixture", "Search", "Trial", "density", "fit_components",
           "fit_mixture", "load", "preprocessed_rows", "regression", "save",
           "search"]  # fmt: skip

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
from .conditioning import Conditional
from .files import load_tensors, save_tensors
from .flow import Flow
from .preprocessing import Preprocessing
from .randomness import Generator, RowGenerator
from .randomness import generator as derive
from .tables.batches import Split

COMPONENTS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of components to try."""

ROWS = 50_000
"""Largest number of rows of a maximization."""

NUMBERS = 1 << 25
"""Largest number of their values: 256 MiB."""

BUDGET = 4e11
"""Operations of all maximizations together: about 8 s of one core."""

LEAST, MOST = 10, 100
"""Fewest iterations that are worth a start, and the largest number of them."""

START = 20
"""Cost of the start by K-means, in iterations with diagonal covariances."""

FLOOR = 1e-6
"""Number added to variances of standardized columns, as scikit-learn does."""

PATIENCE = 2
"""Candidates in succession without improvement that end the search."""

KINDS = ("diag", "full")
"""Kinds of covariances in the order of the search, by scikit-learn's names."""

log = logging.getLogger("ebflow.mixtures")


@dataclass(frozen=True)
class Trial:
    """A fitted candidate.

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
    """The result of a search.

    Attributes:
        mixture: The best mixture by the validation rows, in float64.
        best: Its trial.
        trials: All trials, in order.
        rows: The number of training rows used.
        skipped: Candidates beyond the budget, as (K, kind).
    """

    mixture: GaussianMixture
    best: Trial
    trials: tuple[Trial, ...]
    rows: int
    skipped: tuple[tuple[int, str], ...]


def fit_mixture(
    x: Tensor,
    validation: Tensor,
    *,
    components: Sequence[int] = COMPONENTS,
    seed: int = 0,
    rows: int = ROWS,
) -> GaussianMixture:
    """Returns the mixture of Gaussians that is best on validation rows.

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
    contexts: int = 0,
) -> Search:
    """Fits mixtures of more and more Gaussians, and chooses by the validation rows.

    Diagonal covariances get half of the budget, full ones the rest. Candidates beyond the budget
    are skipped and logged. One diagonal Gaussian is always fitted.

    Cost: at most ``budget`` operations, and O(N D) memory.

    Arguments:
        x: Training rows with shape (N, D), after the preprocessing. They are standardized here
            as well, so that the covariances' floor, 1e-6, is relative.
        validation: Validation rows with shape (M, D).
        components: Numbers of Gaussians, in ascending order; those above N are left out.
        seed: The seed of the choice of rows and of the starts.
        rows: The largest number of training rows; a random choice if there are more.
        budget: The largest number of operations.
        contexts: The number of leading columns that are contexts. Mixtures have all columns, and
            the conditional density of the others judges them.

    Raises:
        ValueError: if shapes do not agree, a value is not finite, or numbers do not ascend.
    """
    _check(x, validation, components)
    x, validation = _chosen(x, rows, seed), validation.detach().cpu().double()
    mean, scale = _standard(x)
    counts = [k for k in components if k <= len(x)]
    walk = _Walk(((x - mean) / scale).numpy(), (validation - mean) / scale, seed, contexts)
    for kind, share in zip(KINDS, (0.5, 1.0), strict=True):
        walk.up(kind, counts, budget * share)
    if walk.skipped:
        names = ", ".join(f"{k} {kind}" for k, kind in walk.skipped)
        log.info("mixture of Gaussians: beyond the budget of %.2g operations: %s", budget, names)
    offset = float(scale[contexts:].log().sum())
    trials = tuple(replace(trial, nll=trial.nll + offset) for trial in walk.trials)
    best = min(trials, key=lambda trial: trial.nll)
    mixture = _mixture(walk.model, mean, scale)
    return Search(mixture, best, trials, len(x), tuple(walk.skipped))


def fit_components(
    x: Tensor, count: int, *, ridge: float = FLOOR, seed: int = 0, steps: int = MOST
) -> GaussianMixture:
    """Returns a mixture of ``count`` Gaussians with full covariances, in float64 on the CPU.

    Rows are whitened first. Near-collinear columns then keep their small conditional variances,
    which the ridge would otherwise widen.

    Arguments:
        x: Rows with shape (N, D).
        count: The number K of Gaussians, at most N.
        ridge: The number added to variances of whitened rows.
        seed: The seed of the start.
        steps: The largest number of iterations.
    """
    x = x.detach().cpu().double()
    mean, scale = _standard(x)
    correlations = torch.cov(((x - mean) / scale).mT, correction=0)
    jitter = FLOOR * ridge * torch.eye(len(mean)).to(x)
    root = scale[:, None] * torch.linalg.cholesky(correlations + jitter)
    white = torch.linalg.solve_triangular(root, (x - mean).mT, upper=False).mT
    mixture = _mixture(
        _fitted(white.numpy(), count, "full", steps, seed, ridge), 0 * mean, mean**0
    )
    means, covariances = mixture.means @ root.mT + mean, root @ mixture.covariances @ root.mT
    return GaussianMixture(mixture.weights, means, covariances)


def preprocessed_rows(
    chain: Preprocessing, split: Split, *, most: int = ROWS, seed: int = 0, batch_size: int = 1024
) -> Tensor:
    """Returns rows of a split after a preprocessing, with shape (N, C + D), in float64.

    Their C context elements come first. One streamed pass; integers have the noise with which the
    preprocessing was fitted.

    Arguments:
        chain: The preprocessing.
        split: The split.
        most: The largest number of rows, less for wide rows; a random choice if there are more.
        seed: The seed of the choice and of the noise.
        batch_size: Rows at a time.
    """
    flow = Flow((split.width,), []).double().preprocessed(chain)
    numbers, first, parts = _numbers(len(split), _most(split.width, most), seed), 0, []
    for rows, context in split.batches(batch_size):
        here = numbers[(numbers >= first) & (numbers < first + len(rows))] - first
        if len(here):
            noise = RowGenerator(seed, "preprocess", first=first)
            y = flow.preprocess(rows, generator=noise)
            parts.append((y if context is None else torch.cat([context, y], 1))[here])
        first += len(rows)
    return torch.cat(parts)


def density(mixture: GaussianMixture, chain: Preprocessing) -> Flow:
    """Returns a mixture after a preprocessing as a density of raw data, in float64.

    If the mixture has more features than the data, the first ones are contexts, and the density is
    conditional.
    """
    width = chain.spec["width"]
    contexts = mixture.size - width
    base = ConditionedMixture(mixture, contexts) if contexts else mixture
    return Flow((width,), [], base=base, context=contexts).double().preprocessed(chain)


def regression(x: Tensor, contexts: int) -> GaussianMixture:
    """Returns the joint Gaussian of rows whose conditional is least-squares regression.

    The first C columns are the contexts. If they depend on each other, as the elements of one
    category do, the coefficients are the smallest ones. The residuals' covariance has the floor of
    all mixtures. Returns a mixture of one component in float64.
    """
    mean, scale = _standard(x.double())
    z = (x.double() - mean) / scale
    covariance = z.mT @ z / len(z)
    own, cross = covariance[:contexts, :contexts], covariance[contexts:, :contexts]
    line = cross @ torch.linalg.pinv(own, rtol=1e-10, hermitian=True)
    residual = covariance[contexts:, contexts:] - line @ cross.mT
    residual = residual + FLOOR * torch.eye(len(residual)).to(residual)
    joint = torch.eye(len(mean)).to(mean)  # contexts as if white: the conditional is the same
    joint[contexts:, :contexts], joint[:contexts, contexts:] = line, line.mT
    joint[contexts:, contexts:] = residual + line @ line.mT
    weights, means = torch.ones(1).to(mean), mean[None]
    return GaussianMixture(weights, means, (joint * torch.outer(scale, scale))[None])


def save(mixture: GaussianMixture, path: Path) -> None:
    """Writes a mixture to one safetensors file."""
    save_tensors(mixture.state_dict(), path, spec=json.dumps(mixture.spec))


def load(path: Path) -> GaussianMixture:
    """Returns a mixture that ``save`` wrote, equal to the bit."""
    state, metadata = load_tensors(path)
    mixture = build(json.loads(metadata["spec"])).to(state["means"].dtype)
    mixture.load_state_dict(state)
    return mixture


def operations(count: int, rows: int, width: int, kind: str) -> float:
    """Returns the approximate operations of an iteration, memory traffic included."""
    if kind == "diag":
        return rows * count * (20.0 * width + 1400)
    return rows * count * (4.0 * width**2 + 300 * width + 1400) + 3.0 * count * width**3


class _Walk:
    """A search through increasing numbers of components, kind by kind, within a budget."""

    def __init__(self, x: np.ndarray, validation: Tensor, seed: int, contexts: int = 0) -> None:
        self.x, self.validation, self.seed, self.contexts = x, validation, seed, contexts
        self.spent, self.best, self.model = 0.0, math.inf, None
        self.trials: list[Trial] = []
        self.skipped: list[tuple[int, str]] = []

    def up(self, kind: str, counts: Sequence[int], budget: float) -> None:
        """Tries numbers until two in succession are no better than the best of their kind."""
        best, stale = math.inf, 0
        for count in counts:
            steps = self._affordable(count, kind, budget)
            if steps < LEAST and (count, kind) != (counts[0], KINDS[0]):
                self.skipped.append((count, kind))
                continue
            trial = self._try(count, kind, max(steps, LEAST))
            best, stale = (trial.nll, 0) if trial.nll < best else (best, stale + 1)
            if stale == PATIENCE:
                return

    def _affordable(self, count: int, kind: str, budget: float) -> int:
        """Returns the number of iterations that the budget has left, at most ``MOST``."""
        left = budget - self.spent - self._start(count)
        return min(MOST, int(left / operations(count, *self.x.shape, kind)))

    def _start(self, count: int) -> float:
        return START * operations(count, *self.x.shape, "diag")

    def _try(self, count: int, kind: str, steps: int) -> Trial:
        model = _fitted(self.x, count, kind, steps, self.seed)
        self.spent += self._start(count)
        self.spent += model.n_iter_ * operations(count, *self.x.shape, kind)
        trial = Trial(count, kind, self._nll(model), model.n_iter_)
        self.trials.append(trial)
        if trial.nll < self.best:
            self.best, self.model = trial.nll, model
        return trial

    def _nll(self, model: Any) -> float:  # noqa: ANN401
        zero = torch.zeros(self.x.shape[1], dtype=torch.float64)
        mixture = _mixture(model, zero, zero + 1)
        nll = mixture.energy(self.validation)
        if self.contexts:
            leading = mixture.leading(self.contexts)
            nll = nll - leading.energy(self.validation[:, : self.contexts])
        return float(nll.mean())


def _fitted(
    x: np.ndarray, count: int, kind: str, steps: int, seed: int, ridge: float = FLOOR
) -> Any:  # noqa: ANN401
    """Returns scikit-learn's mixture after at most ``steps`` iterations."""
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
    """Returns the mixture of scale · z + mean, for scikit-learn's mixture of z."""
    arrays = (model.weights_, model.means_, model.covariances_)
    weights, means, covariances = (torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)
    square = torch.outer(scale, scale) if covariances.ndim == 3 else scale.square()
    return GaussianMixture(weights, means * scale + mean, covariances * square)


def _standard(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the columns' means and standard deviations; 1 for a constant column."""
    mean, deviation = x.mean(0), x.std(0, correction=0)
    return mean, torch.where(deviation > 0, deviation, 1.0)


def _chosen(x: Tensor, most: int, seed: int) -> Tensor:
    """Returns at most ``most`` random rows, in their order, in float64 on the CPU."""
    x = x.detach()
    return x[_numbers(len(x), _most(x.shape[1], most), seed).to(x.device)].cpu().double()


def _most(width: int, rows: int) -> int:
    return min(rows, max(2, NUMBERS // width))


def _numbers(count: int, most: int, seed: int) -> Tensor:
    """Returns at most ``most`` random numbers of rows, in order."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=derive(seed, "mixture", "rows"))[:most].sort().values


def _check(x: Tensor, validation: Tensor, components: Sequence[int]) -> None:
    if x.ndim != 2 or len(x) < 2 or validation.ndim != 2 or not len(validation):
        shapes = f"{tuple(x.shape)}, {tuple(validation.shape)}"
        raise ValueError(f"x, validation: found shapes {shapes}, expected (N, D), (M, D)")
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
    r"""Creates a mixture of Gaussians over contexts and data, conditional on the contexts.

    .. math:: p(x \mid c) = \frac{p(c, x)}{p(c)},

    O(K B (C + D)²) with full covariances. One component is linear regression with Gaussian
    residuals.

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
        """Raises ValueError: the density needs a context."""
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
        c = self._contexts(len(x))
        marginal = self.joint.leading(c.shape[1])
        return self.joint.energy(torch.cat([c, x.flatten(1)], 1)) - marginal.energy(c)

    def draw(self, shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
        """Returns samples with shape (R B, *event)."""
        c, joint = self._contexts(shape[0]).to(self.joint.means), self.joint
        rows = torch.cat([c, c.new_zeros(len(c), joint.size - c.shape[1])], 1)
        missing = torch.arange(joint.size, device=c.device) >= c.shape[1]
        given = Conditional(joint, rows[None], missing[None], contexts=c.shape[1])
        return given.sample(1, generator)[0, :, 0].to(like).view(shape)

    def _contexts(self, rows: int) -> Tensor:
        return self.context.repeat(rows // len(self.context), 1)
