r"""Columns that are exact linear functions of other ones, by a triangular factor of all rows.

With R the triangular factor of the matrix [1, x] of the complete rows, :math:`R^\top R` are the
moments of the columns. A column is dropped if its part in R that is orthogonal to the independent
columns before it is below ``EXACT`` of its norm around the mean.
"""

from collections.abc import Iterator, Sequence

import numpy as np

EXACT = 1e-6  # Largest residual standard deviation of a linear function, in those of its column
WIDEST = 1024  # Columns of a table in which linear functions are looked for, at most
TALL = 3  # Complete rows for each column, at least
CHUNK = 4096  # Rows that are added at a time
DIGITS = 9  # Digits to which coefficients are rounded


class Factor:
    """The triangular factor of complete rows [1, x − first row] of D columns, batch by batch."""

    def __init__(self, width: int) -> None:
        self.width, self.count = width, 0
        self.origin, self.root = np.zeros(width), np.empty((0, width + 1))

    def update(self, rows: np.ndarray) -> None:
        """Adds rows with shape (N, D); cost: O(N D²)."""
        if not 0 < self.width <= WIDEST:
            return
        rows = rows[np.isfinite(rows).all(1)]
        if len(rows) and not self.count:
            self.origin = rows[0]
        self.count += len(rows)
        for first in range(0, len(rows), CHUNK):
            part = np.insert(rows[first : first + CHUNK] - self.origin, 0, 1.0, axis=1)
            self.root = np.linalg.qr(np.concatenate([self.root, part]), mode="r")

    @property
    def correlations(self) -> np.ndarray:
        """The correlations of the columns in complete rows, (D, D)."""
        root = self.root[1:, 1:]
        with np.errstate(all="ignore"):  # NaN if a column is constant, or its squares overflow
            root = root / np.linalg.norm(root, axis=0)
        return root.T @ root


def dependent(
    factor: Factor, columns: Sequence[int], units: Sequence[float]
) -> Iterator[tuple[int, dict[int, float], float]]:
    """Yields columns that are linear functions of those before them; cost: O(D³).

    Each is the place of a column, the coefficients of others by their places, and the constant.
    The ``columns`` of the factor are used in this order, multiplied by ``units`` first.
    """
    if factor.count < TALL * max(1, len(columns)) or len(factor.root) < factor.width + 1:
        return
    from scipy.linalg import norm, solve_triangular  # importing it takes long

    root = factor.root[:, [0, *(k + 1 for k in columns)]] * [1.0, *units]
    origin = np.array([0.0, *factor.origin[list(columns)] * units])
    spreads = np.array([norm(column[1:]) for column in root.T])  # does not overflow
    basis, upper = np.zeros_like(root), np.zeros((root.shape[1], root.shape[1]))
    independent = []  # these are the first columns of basis @ upper
    for k, column in enumerate(root.T):
        if k and not spreads[k]:  # it varies only in rows with missing values
            continue
        rest, rank = column, len(independent)
        for _ in range(2):  # once more, against rounding
            rest = rest - basis[:, :rank] @ (basis[:, :rank].T @ rest)
        if k == 0 or not norm(rest) < EXACT * spreads[k]:
            basis[:, rank] = rest / norm(rest)
            upper[:, rank] = basis.T @ column
            independent.append(k)
            continue
        weights = solve_triangular(upper[:rank, :rank], basis[:, :rank].T @ column)
        weights *= np.abs(weights) * spreads[independent] > EXACT * spreads[k]
        terms, offset = _rounded(root, origin, independent[1:], k, weights[1:])
        yield k - 1, {j - 1: weight for j, weight in terms.items() if weight}, offset


def _rounded(
    root: np.ndarray, origin: np.ndarray, used: list[int], k: int, weights: np.ndarray
) -> tuple[dict[int, float], float]:
    """Returns the coefficients and the constant, with nine digits if these fit the rows."""
    near = np.array([float(f"{weight:.{DIGITS}g}") for weight in weights])
    residual = root[:, k] - root[:, used] @ near
    offset = float(residual[0] / root[0, 0] + origin[k] - origin[used] @ near)
    constant, spread = round(offset, DIGITS), np.linalg.norm(root[1:, k] / root[0, 0])
    fits = abs(constant - offset) <= EXACT * spread
    return dict(zip(used, near.tolist(), strict=True)), constant if fits else offset
