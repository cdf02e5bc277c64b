r"""An anomaly score at a finite resolution, and its calibration by held-out normal rows.

A density alone is a poor score. A column on a grid, or a narrow spike, makes it as large as one
likes, and the Jacobian of a column's transform pays for that. The score therefore has three rules:

1. **No unit of length decides.** Four views of the columns compare rows, and each errs elsewhere:
   robust units, the same with compressed tails, half-whitened, and normal scores.
2. **Density, and density relative to the neighbourhood, count alike.** In each view the score is
   :math:`\overline{\log d}(x) - \tfrac12 \overline{\log r}`: the mean log-distance to the
   nearest reference rows, of which the k-th has the weight 1 / k, so that all scales count
   alike; and the log-radius around the ``AROUND`` nearest. Without the second term it is about
   :math:`-\log p / D`. With all of it, it is the local outlier factor.
3. **Rows are noisy**, by ``NOISE``. So are distances. A mixture of Gaussians is fitted to
   standardized columns with noise of this standard deviation.

Each score becomes a p-value by reference rows, and the harmonic mean of these is the anomaly
score. It holds for p-values that depend on each other, and one small p-value is enough.

Source: LOF: Identifying Density-Based Local Outliers (Breunig, Kriegel, Ng, Sander, 2000); The
harmonic mean p-value for combining dependent tests (Wilson, 2019); Algorithmic Learning in a
Random World (Vovk, Gammerman, Shafer, 2005) for p-values by held-out rows.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import isqrt

import numpy as np
import torch
from scipy.special import ndtri
from sklearn.covariance import ledoit_wolf
from sklearn.mixture import GaussianMixture as Mixture
from sklearn.neighbors import NearestNeighbors

from .bases import GaussianMixture
from .randomness import generator as derive

Rows = np.ndarray
View = Callable[[Rows], Rows]

NEAREST = 40  # Most reference rows whose distances are averaged; √N of N, if that is less
AROUND = 5  # Those of them whose neighbourhood is compared
EQUAL = 1e-3  # Distance in a view below which rows are equal
COMPONENTS, NOISE = 8, 0.1  # Gaussians of the density; noise of columns and of distances
DIRECTIONS = 100  # Most principal components of the density
FAR = 1e100  # Largest standardized number: its square is finite

# Quantile of the reference rows' scores that has the standardized score 1, and least distance of
# that score from the median, in logarithms: many rows on a grid have one score.
TAIL, LEAST = 0.9, 0.1
ODDS = np.log(TAIL / (1 - TAIL))  # Log-odds of 1 - p at the standardized score 1


class Score:
    """An anomaly score that is fitted to normal rows.

    Scores are below 1e4, because they are logarithms in units of ``LEAST`` or more.

    Cost: O(N²) distances of rows.

    Arguments:
        x: Normal rows with shape (N, D), all finite.
        ranges: Ranges with shape (D,): the units of columns that are constant in ``x``.
    """

    def __init__(self, x: Rows, ranges: Rows, *, seed: int) -> None:
        random = np.random.default_rng(derive(seed, "detection").initial_seed())
        self.origin = x[0]
        shifted = x - self.origin
        self.centre, scale = shifted.mean(0), shifted.std(0)
        self.scale = np.where(scale > 0, scale, ranges / np.sqrt(len(x)))
        z = self._standardized(x)
        self.parts = [_Neighbours(view(z), z) for view in VIEWS] if z.shape[1] else []
        self.parts += [_Density(z, seed, random)] if z.shape[1] else []

    def __call__(self, x: Rows) -> Rows:
        """Returns the log of the sum of 1 / p with shape (N,); larger ones are more anomalous.

        Reference rows' scores have a logistic distribution: 1 / p = 1 + exp(log-odds).
        """
        z = self._standardized(x)
        logs = [np.logaddexp(0, ODDS * part(z)) for part in self.parts]
        return np.logaddexp.reduce(logs) if logs else np.zeros(len(x))

    def _standardized(self, x: Rows) -> Rows:
        with np.errstate(over="ignore"):
            z = ((x - self.origin) - self.centre) / self.scale
        return z.clip(-FAR, FAR)


def p_values(scores: Rows, held_out: Rows) -> Rows:
    """Returns the share of held-out normal rows, and of the row itself, with as large a score.

    If a row is exchangeable with the held-out rows, which had no part in the fit, its p-value is
    at most α with probability α. The scores ``held_out`` ascend.
    """
    above = len(held_out) - np.searchsorted(held_out, scores, side="left")
    return (1 + above) / (1 + len(held_out))


class _Neighbours:
    """The distances to reference rows in a view of the columns."""

    def __init__(self, view: View, z: Rows) -> None:
        self.view, rows = view, view(z)
        count = 1 + min(NEAREST, isqrt(len(rows)))
        self.index = NearestNeighbors(n_neighbors=count).fit(rows)
        logs, near = self._nearest(z)
        self.radius = logs[:, :AROUND][:, -1]
        self.standard = _standard(self._raw(logs, near))

    def __call__(self, z: Rows) -> Rows:
        return self.standard(self._raw(*self._nearest(z)))

    def _raw(self, logs: Rows, near: Rows) -> Rows:
        mean = np.average(logs, axis=1, weights=1 / np.arange(1, logs.shape[1] + 1))
        return mean - 0.5 * self.radius[near[:, :AROUND]].mean(1)

    def _nearest(self, z: Rows) -> tuple[Rows, Rows]:
        """Returns log-distances and places of the nearest rows but one equal to the row.

        A reference row is then scored as if it were none.
        """
        distances, near = self.index.kneighbors(self.view(z))
        equal = distances[:, :1] < EQUAL
        logs = np.log(np.hypot(distances, NOISE))
        return tuple(np.where(equal, part[:, 1:], part[:, :-1]) for part in (logs, near))


class _Density:
    """The density of noisy rows, by the principal components of standardized columns."""

    def __init__(self, z: Rows, seed: int, random: np.random.Generator) -> None:
        _, _, axes = np.linalg.svd(z[random.permutation(len(z))[:2_000]], full_matrices=False)
        whole = z.shape[1] <= min(DIRECTIONS, len(z) // 2)
        self.axes = np.eye(z.shape[1]) if whole else axes[: min(DIRECTIONS, len(z) // 2)].T
        order = random.permutation(len(z))
        held_out, rows = np.split(z[order] @ self.axes, [max(1, len(z) // 5)])
        self.mixture = _fitted(rows, seed)
        self.standard = _standard(self._raw(held_out))

    def __call__(self, z: Rows) -> Rows:
        u = self.standard(self._raw(z @ self.axes))
        return np.where(u < 1, u, 1 + np.log(np.maximum(u, 1)))  # as the logs of distances

    def _raw(self, y: Rows) -> Rows:
        return self.mixture.energy(torch.from_numpy(y)).numpy()


def _fitted(rows: Rows, seed: int) -> GaussianMixture:
    """Returns a mixture of Gaussians; in float64, rows are rounded alike in any batch."""
    count = min(COMPONENTS, max(1, len(rows) // 10))
    model = Mixture(count, reg_covar=NOISE**2, random_state=seed, max_iter=50).fit(rows)
    arrays = (model.weights_, model.means_, model.covariances_)
    return GaussianMixture(*(torch.from_numpy(array).float() for array in arrays)).double()


def _standard(reference: Rows) -> View:
    """Returns scores that are 0 at the median of those of reference rows, and 1 at a quantile."""
    middle, tail = np.quantile(reference, [0.5, TAIL])
    return partial(_scaled, middle=middle, scale=max(tail - middle, LEAST))


def _robust(z: Rows) -> View:
    """Returns deviations from the median in units of the quartiles' distance."""
    low, middle, high = np.quantile(z, [0.25, 0.5, 0.75], axis=0)
    scale = (high - low) / 1.349
    return partial(_scaled, middle=middle, scale=np.where(scale < 0.1, 1.0, scale))


def _scaled(z: Rows, middle: Rows, scale: Rows) -> Rows:
    return (z - middle) / scale


def _compressing(z: Rows) -> View:
    """Returns robust deviations with logarithmic tails, in standard deviations."""
    robust = _robust(z)
    scale = np.arcsinh(robust(z)).std(0)
    return partial(_compressed_columns, robust=robust, scale=np.where(scale > 0, scale, 1.0))


def _compressed_columns(z: Rows, robust: View, scale: Rows) -> Rows:
    return np.arcsinh(robust(z)) / scale


def _half_whitening(z: Rows) -> View:
    """Returns rows times the fourth root of the inverse of the shrunk covariance."""
    covariance, _ = ledoit_wolf(z)
    variances, axes = np.linalg.eigh(covariance + np.diag(z.std(0) == 0))
    return partial(np.dot, b=axes * np.maximum(variances, 1e-9) ** -0.25)


def _normal_scores(z: Rows) -> View:
    """Returns the columns' normal scores, which grow linearly beyond the reference rows."""
    values, counts = zip(*(np.unique(column, return_counts=True) for column in z.T), strict=True)
    shares = [(np.cumsum(count) - count / 2) / len(z) for count in counts]
    return partial(_interpolated, values=values, scores=[ndtri(share) for share in shares])


def _interpolated(z: Rows, values: Sequence[Rows], scores: Sequence[Rows]) -> Rows:
    columns = [np.interp(z[:, k], values[k], scores[k]) for k in range(z.shape[1])]
    low, high = ([ends[k] for ends in values] for k in (0, -1))
    return np.stack(columns, 1) + z - z.clip(low, high)


VIEWS = (_robust, _compressing, _half_whitening, _normal_scores)
