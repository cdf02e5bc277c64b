r"""Mixtures of Gaussians fitted by expectation maximization: the classical density beside a flow.

scikit-learn does the maximization. Validation rows choose the number of components, and full or
diagonal covariances: a component that collapses onto few rows has an enormous likelihood there.

The work is bounded by a count of operations, never by a clock, so that a seed gives the same
mixture on a busy machine. An iteration on N rows costs about :math:`N K (4 D^2 + 300 D + 1400)`
operations with full covariances, plus :math:`3 K D^3`, and :math:`N K (20 D + 1400)` with
diagonal ones. The terms below :math:`D^2` stand for code that moves memory instead of multiplying.
"""

import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from .bases import GaussianMixture
from .preprocessing import Preprocessing, transformed
from .randomness import generator as derive
from .tables.batches import Split
from .tables.rows import Rows, sampled

COMPONENTS = (1, 2, 4, 8, 16, 32, 64)  # Numbers of components to try
ROWS = 50_000  # Largest number of rows of a maximization
VALUES = 1 << 25  # Largest number of their values: 256 MiB
BUDGET = 4e11  # Operations of all maximizations together: about 8 s of one core
LEAST, MOST = 10, 100  # Fewest iterations that are worth a start, and the largest number of them
START = 20  # Cost of the start by K-means, in iterations with diagonal covariances
FLOOR = 1e-6  # Number added to variances of standardized columns, as scikit-learn does
STARTS = 4  # Starts of the best candidate of each kind, for the base of a flow
PATIENCE = 2  # Candidates of a kind in succession without improvement that end its search

# Kinds of covariances in the order of the search, by scikit-learn's names, with the share of the
# budget that may be used up after each (half of the rest: by other starts). Full ones come first.
SHARES = {"full": 0.8, "diag": 1.0}


def fit_mixture(
    x: Tensor,
    validation: Tensor,
    *,
    components: Sequence[int] = COMPONENTS,
    seed: int = 0,
    budget: float = BUDGET,
    contexts: int = 0,
    starts: int = 1,
) -> GaussianMixture:
    """Returns the mixture of Gaussians that is best on validation rows, in float64.

    Candidates beyond the budget are not fitted. One diagonal Gaussian is always fitted.

    Cost: at most ``budget`` operations, and O(N D) memory.

    Arguments:
        x: Training rows with shape (N, D); a random choice of ``ROWS`` if there are more. They
            are standardized, so that the covariances' floor, 1e-6, is relative.
        validation: Validation rows with shape (M, D).
        components: Numbers of Gaussians, in ascending order; those above N are ignored.
        contexts: The number of leading columns that are contexts. Mixtures have all columns, and
            the conditional density of the others judges them.
        starts: Random starts of the best candidate of a kind, if the budget has some left.

    Raises:
        ValueError: if shapes do not agree, a value is not finite, or numbers do not ascend.

    Example:
        >>> mixture = ebflow.fit_mixture(x[:40], x[40:])
        >>> mixture.log_prob(x.double()).shape
        torch.Size([60])
    """
    _check(x, validation, components)
    x, validation = (rows.detach().cpu().double() for rows in (x, validation))
    x = sampled(Rows(x), _most(x.shape[1]), seed, "mixture", "rows").tensor()
    best, least, spent, chosen = None, math.inf, 0.0, ("", 0)

    def rounds() -> Iterator[tuple[float, list[tuple[str, int, int]]]]:
        for kind, share in SHARES.items():
            yield share, [(kind, count, 0) for count in components if count <= len(x)]
            yield (1 + share) / 2, [(*chosen, k) for k in range(1, starts) if chosen[0] == kind]

    for share, candidates in rounds():
        lowest, stale = math.inf, 0
        for kind, count, start in candidates:
            first, step = _costs(count, x.shape, kind)
            steps = min(MOST, int((share * budget - spent - first) / step))
            needed = kind == "diag" and best is None
            if stale == PATIENCE or (steps < LEAST and not needed):
                break
            mixture, iterations = _fitted(x, count, kind, max(steps, LEAST), seed, start)
            spent += first + iterations * step
            nll = _nll(mixture, validation, contexts)
            lowest, stale = (nll, 0) if nll < lowest else (lowest, stale + 1)
            if nll < least:
                best, least, chosen = mixture, nll, (kind, count)
    return best


def _nll(mixture: GaussianMixture, rows: Tensor, contexts: int) -> float:
    """Returns the mean NLL of rows given their leading contexts."""
    nll = float(mixture.energy(rows).mean())
    if not contexts:
        return nll
    return nll - float(mixture.marginal(range(contexts)).energy(rows[:, :contexts]).mean())


def _costs(count: int, shape: Sequence[int], kind: str) -> tuple[float, float]:
    """Returns approximate operations of a start and of an iteration, memory traffic included."""
    rows, width = shape
    diagonal = rows * count * (20.0 * width + 1400)
    full = rows * count * (4.0 * width**2 + 300 * width + 1400) + 3.0 * count * width**3
    return START * diagonal, diagonal if kind == "diag" else full


def fit_components(
    x: Tensor, count: int, *, ridge: float = FLOOR, seed: int = 0
) -> GaussianMixture:
    """Returns a mixture of ``count`` Gaussians with full covariances, in float64 on the CPU.

    Rows (N, D) are whitened first, and ``ridge`` is added to their variances then. Near-collinear
    columns keep their small conditional variances, which the ridge would otherwise widen.
    """
    x = x.detach().cpu().double()
    scale, mean = _standard(x)
    correlations = torch.cov(((x - mean) / scale).mT, correction=0)
    jitter = 1e-8 * torch.eye(len(mean)).to(x)  # contexts may be linear functions of others
    root = scale[:, None] * torch.linalg.cholesky(correlations + jitter)
    white = torch.linalg.solve_triangular(root, (x - mean).mT, upper=False).mT
    white = white * (white.std(0) > 0.1)  # other directions have rounding errors alone
    mixture, _ = _fitted(white, count, "full", MOST, seed, ridge=ridge)
    means, covariances = mixture.means @ root.mT + mean, root @ mixture.covariances @ root.mT
    return GaussianMixture(mixture.weights, means, covariances)


def regression(x: Tensor) -> GaussianMixture:
    """Returns the Gaussian of rows in float64: given leading columns, least-squares regression."""
    return _fitted(x.detach().cpu().double(), 1, "full", 1, seed=0)[0]


def preprocessed_rows(chain: Preprocessing, split: Split, *, seed: int = 0) -> Tensor:
    """Returns rows of a split after a preprocessing, with shape (N, C + D), in float64.

    Their C context elements come first. Of many rows, ``ROWS`` or less are chosen at random.
    """
    rows = sampled(split, _most(split.width), seed, "mixture", "rows")
    batches = transformed(rows, chain, seed)
    return torch.cat([y if context is None else torch.cat([context.to(y), y], 1)
                      for y, context in batches])  # fmt: skip


def _fitted(
    x: Tensor, count: int, kind: str, steps: int, seed: int, start: int = 0, ridge: float = FLOOR
) -> tuple[GaussianMixture, int]:
    """Returns scikit-learn's mixture of standardized rows, in their units, and the iterations."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as Mixture

    scale, mean = _standard(x)
    own = (seed, "mixture", kind, count, *([start] if start else []))
    random = derive(*own).initial_seed() % 2**32
    model = Mixture(
        count, covariance_type=kind, max_iter=steps, random_state=random, reg_covar=ridge
    )
    no_warning = warnings.catch_warnings(action="ignore", category=ConvergenceWarning)
    with no_warning, threadpool_limits(1):  # threads wait for each other on a busy machine
        model.fit(((x - mean) / scale).numpy())
    arrays = (model.weights_, model.means_, model.covariances_)
    weights, means, covariances = (torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)
    square = torch.outer(scale, scale) if kind == "full" else scale.square()
    return GaussianMixture(weights, means * scale + mean, covariances * square), model.n_iter_


def _standard(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the columns' standard deviations, 1 for a constant column, and means."""
    scale, mean = torch.std_mean(x, 0, correction=0)
    varies = scale > 1e-10 * mean.abs()  # that of a constant is a rounding error
    return torch.where(varies, scale, 1.0), mean


def _most(width: int) -> int:
    """Returns the largest number of rows of a maximization; fewer of wide rows."""
    return min(ROWS, max(2, VALUES // width))


def _check(x: Tensor, validation: Tensor, components: Sequence[int]) -> None:
    two_dimensional = x.ndim == validation.ndim == 2 and x.shape[1] == validation.shape[1]
    if not two_dimensional or len(x) < 2 or not len(validation):
        shapes = f"{tuple(x.shape)}, {tuple(validation.shape)}"
        raise ValueError(f"x, validation: found shapes {shapes}, expected (N, D), (M, D)")
    for name, rows in (("x", x), ("validation", validation)):
        if not bool(rows.isfinite().all()):
            raise ValueError(f"{name}: found a value that is not finite, expected finite numbers")
    least = min(components, default=0)
    if sorted(set(components)) != list(components) or not 1 <= least <= len(x):
        raise ValueError(f"components: found {components}, expected ascending counts from 1 on, "
                         f"the first one at most the {len(x)} rows")  # fmt: skip
