r"""Columns that are exact linear functions of other ones, by one Cholesky factorization.

With R the correlations of the columns, the part of column k that the columns before it do not
explain has the variance :math:`1 - \lVert L^{-1} R_{<k, k} \rVert^2`, where :math:`L L^\top` are
the correlations of those of them that are independent. The column is dropped if that is below
``EXACT``²: its residual standard deviation is below a millionth of its own.
"""

__all__ = ["Moments", "dependent"]

from collections.abc import Iterator, Sequence

import numpy as np

EXACT = 1e-6
"""Largest residual standard deviation of a linear function, in those of its column."""

WIDEST = 1024
"""Columns of a table in which linear functions are looked for, at most."""

TALL = 3
"""Complete rows for each column, at least."""

KEPT = 1000
"""Complete rows on which a function is confirmed."""

ROUND, DIGITS = 4, 9
"""Significant digits to which coefficients are rounded, if the function then still holds."""


class Moments:
    """Means and covariances of complete rows, by Chan's update, and the first of these rows.

    Arguments:
        width: The number D of columns.
    """

    def __init__(self, width: int) -> None:
        self.width, self.count = width, 0
        if width > WIDEST:
            return
        self.mean, self.squares = np.zeros(width), np.zeros((width, width))
        self.first = np.empty((0, width))

    def update(self, rows: np.ndarray) -> None:
        """Adds rows with shape (N, D)."""
        if self.width > WIDEST:
            return
        rows = rows[np.isfinite(rows).all(1)]
        if not len(rows):
            return
        total, mean = self.count + len(rows), rows.mean(0)
        shift, centred = mean - self.mean, rows - mean
        with np.errstate(over="ignore", invalid="ignore"):
            self.squares += centred.T @ centred
            self.squares += np.outer(shift, shift) * (self.count * len(rows) / total)
        self.mean += shift * (len(rows) / total)
        self.count = total
        self.first = np.concatenate([self.first, rows[: KEPT - len(self.first)]])

    def scaled(self, columns: Sequence[int], factors: np.ndarray) -> "Moments":
        """Returns the moments of some columns, multiplied by factors."""
        found = Moments(0 if self.width > WIDEST else len(columns))
        if found.width:
            found.count, found.mean = self.count, self.mean[columns] * factors
            found.squares = self.squares[np.ix_(columns, columns)] * np.outer(factors, factors)
            found.first = self.first[:, columns] * factors
        return found


def dependent(
    moments: Moments, decimals: Sequence[int | None]
) -> Iterator[tuple[int, dict[int, float], float]]:
    """Yields columns that are linear functions of those before them.

    Cost: O(D³).

    Arguments:
        moments: The moments of the columns.
        decimals: The decimal places of each column; None: it is on no grid.

    Yields:
        The index of a column, the coefficients of others by their indices, and the constant.
    """
    width = moments.width
    if not width or moments.count < TALL * width:
        return
    from scipy.linalg import solve_triangular  # importing it takes long

    scale = np.sqrt(np.diag(moments.squares))
    usable = np.isfinite(scale) & (scale > 0)
    scale = np.where(usable, scale, 1.0)
    correlations = moments.squares / np.outer(scale, scale)
    root, kept = np.zeros((width, width)), []
    for k in range(width):
        n = len(kept)
        if not usable[k]:
            continue
        lead = solve_triangular(root[:n, :n], correlations[kept, k], lower=True)
        rest = 1.0 - lead @ lead
        if rest < EXACT**2:
            weights = solve_triangular(root[:n, :n].T, lead) * scale[k] / scale[kept]
            if (found := _confirmed(moments, k, kept, weights, decimals[k])) is not None:
                yield k, *found
            continue  # its pivot is rounding error, by which later columns would be divided
        root[n, :n], root[n, n] = lead, np.sqrt(rest)
        kept.append(k)


def _confirmed(
    moments: Moments, k: int, kept: Sequence[int], weights: np.ndarray, decimals: int | None
) -> tuple[dict[int, float], float] | None:
    """Returns rounded coefficients and the constant, if they give back the first rows."""
    rows, column = moments.first[:, kept], moments.first[:, k]
    spread = np.subtract(*np.quantile(column, [0.75, 0.25])) or column.std()
    allowed = max(EXACT * spread, 1e-13 * np.abs(column).max())
    if decimals is not None:
        allowed = max(allowed, 0.49 * 10.0**-decimals)
    share = np.abs(weights) * moments.first.std(0)[kept] / column.std()
    weights = np.where(share < EXACT, 0.0, weights)
    for digits in (ROUND, DIGITS, 17):
        near = np.array([float(f"{weight:.{digits}g}") for weight in weights])
        offset = moments.mean[k] - near @ moments.mean[kept]
        for constant in (float(np.round(offset, DIGITS)), float(offset)):
            if (np.abs(rows @ near + constant - column) <= allowed).all():
                terms = zip(kept, near.tolist(), strict=True)
                return {j: weight for j, weight in terms if weight}, constant
    return None
