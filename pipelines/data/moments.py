"""Statistics of the columns of a matrix, gathered batch by batch in one pass."""

__all__ = ["Moments"]

import numpy as np


class Moments:
    """Mean, standard deviation, minimum and maximum of each column, without NaN.

    Batches are merged by the pairwise update of their means and sums of squared deviations.

    References:
        Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (Chan et al.,
        1979)
    """

    def __init__(self, width: int) -> None:
        self.count, self.mean, self.squares = (np.zeros(width, t) for t in (int, float, float))
        self.min, self.max = np.full(width, np.inf), np.full(width, -np.inf)

    def update(self, batch: np.ndarray) -> None:
        """Adds a batch with shape (B, D); sums that overflow become infinite or NaN."""
        if not len(batch):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            self._merge(batch.astype(np.float64))
        self.min = np.fmin(self.min, np.fmin.reduce(batch, axis=0))
        self.max = np.fmax(self.max, np.fmax.reduce(batch, axis=0))

    def _merge(self, x: np.ndarray) -> None:
        count = (~np.isnan(x)).sum(axis=0)
        sums = np.add.reduce if (count == len(x)).all() else np.nansum
        mean = sums(x, axis=0) / np.maximum(count, 1)
        shift, total = mean - self.mean, np.maximum(self.count + count, 1)
        self.squares += sums(np.square(x - mean), axis=0)
        self.squares += np.square(shift) * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = self.count + count

    def summary(self) -> dict[str, tuple[float, ...]]:
        """Returns ``mean``, ``std``, ``min`` and ``max``; ``std`` divides by n."""
        std = np.sqrt(self.squares / np.maximum(1, self.count))
        values = {"mean": self.mean, "std": std, "min": self.min, "max": self.max}
        return {key: tuple(value.tolist()) for key, value in values.items()}
