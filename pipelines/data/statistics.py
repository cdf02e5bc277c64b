"""Statistics of features, gathered batch by batch in one pass."""

__all__ = ["Distinct", "Moments"]

import numpy as np

from pipelines.data.manifest import Statistics


class Moments:
    """Mean, standard deviation, minimum and maximum of each feature, of what is not NaN.

    Batches are merged by the pairwise update of their means and sums of squared deviations.

    References:
        Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (Chan et al.,
        1979)
    """

    def __init__(self, width: int) -> None:
        self.count, self.mean, self.squares = (np.zeros(width, t) for t in (int, float, float))
        self.min, self.max = np.full(width, np.inf), np.full(width, -np.inf)

    def update(self, batch: np.ndarray) -> None:
        """Adds a batch, with shape (B, D); sums that overflow become infinite or NaN."""
        if not len(batch):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            self._merge(batch.astype(np.float64))
        self.min = np.fmin(self.min, np.fmin.reduce(batch, axis=0))
        self.max = np.fmax(self.max, np.fmax.reduce(batch, axis=0))

    def _merge(self, x: np.ndarray) -> None:
        seen = (~np.isnan(x)).sum(axis=0)
        sums = np.add.reduce if (seen == len(x)).all() else np.nansum
        mean = sums(x, axis=0) / np.maximum(seen, 1)
        shift = mean - self.mean
        total = np.maximum(self.count + seen, 1)
        self.squares += sums(np.square(x - mean), axis=0)
        self.squares += np.square(shift) * (self.count * seen / total)
        self.mean += shift * (seen / total)
        self.count = self.count + seen

    def summary(self) -> Statistics:
        """Returns the statistics; the standard deviation divides by n."""
        std = np.sqrt(self.squares / np.maximum(1, self.count))
        values = {"mean": self.mean, "std": std, "min": self.min, "max": self.max}
        return Statistics(**{key: tuple(value.tolist()) for key, value in values.items()})


class Distinct:
    """Counts the distinct values of each feature, as long as they are ``limit`` at most."""

    def __init__(self, width: int, limit: int) -> None:
        self.limit = limit
        self.values = {feature: np.empty(0) for feature in range(width)}

    def update(self, batch: np.ndarray) -> None:
        """Adds a batch, with shape (B, D)."""
        for part in (batch[: 16 * self.limit], batch):  # most features are seen to have many soon
            seen = {
                f: np.unique([*old, *part[~np.isnan(part[:, f]), f]])
                for f, old in self.values.items()
            }
            self.values = {f: values for f, values in seen.items() if len(values) <= self.limit}

    def counts(self) -> dict[int, int]:
        """Returns the number of distinct values of each feature that has at most ``limit``."""
        return {feature: len(seen) for feature, seen in self.values.items()}
