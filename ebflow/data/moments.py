"""Statistics of a stream of batches, in float64 and in one pass."""

__all__ = ["Distinct", "Moments"]

import numpy as np


class Moments:
    """Mean, standard deviation, minimum and maximum of each feature.

    Batches are merged by the pairwise update of their means and sums of squared deviations.

    References:
        Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (Chan et al.,
        1979)

    Arguments:
        width: Number of features D.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = np.zeros(width)
        self.squares = np.zeros(width)
        self.min = np.full(width, np.inf)
        self.max = np.full(width, -np.inf)

    def update(self, batch: np.ndarray) -> None:
        """Adds a batch, with shape (B, D); sums that overflow become infinite or NaN."""
        if not len(batch):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            self._merge(batch.astype(np.float64))
        self.min = np.minimum(self.min, batch.min(axis=0))
        self.max = np.maximum(self.max, batch.max(axis=0))

    def _merge(self, x: np.ndarray) -> None:
        mean = x.mean(axis=0)
        shift = mean - self.mean
        total = self.count + len(x)
        self.squares += np.square(x - mean).sum(axis=0)
        self.squares += np.square(shift) * (self.count * len(x) / total)
        self.mean += shift * (len(x) / total)
        self.count = total

    def summary(self) -> dict[str, list[float]]:
        """Returns lists of D numbers; the standard deviation divides by n."""
        std = np.sqrt(self.squares / max(1, self.count))
        values = {"mean": self.mean, "std": std, "min": self.min, "max": self.max}
        return {key: value.tolist() for key, value in values.items()}


class Distinct:
    """Counts the distinct values of each feature, up to a limit.

    Memory and time go only into features that still have few: the rest are dropped.

    Arguments:
        width: Number of features D.
        limit: Features with more distinct values than this are dropped.
    """

    def __init__(self, width: int, limit: int) -> None:
        self.limit = limit
        self.values = {feature: np.empty(0) for feature in range(width)}

    def update(self, batch: np.ndarray) -> None:
        """Adds a batch, with shape (B, D)."""
        for feature in self._few(batch):
            seen = np.unique(np.concatenate([self.values[feature], batch[:, feature]]))
            self.values[feature] = seen
        self.values = {f: seen for f, seen in self.values.items() if len(seen) <= self.limit}

    def counts(self) -> dict[int, int]:
        """Returns the number of distinct values of each feature that has at most ``limit``."""
        return {feature: len(seen) for feature, seen in self.values.items()}

    def _few(self, batch: np.ndarray) -> list[int]:
        head = np.sort(batch[: 16 * self.limit], axis=0)
        many = (head[1:] != head[:-1]).sum(axis=0) >= self.limit
        self.values = {f: seen for f, seen in self.values.items() if not many[f]}
        return list(self.values)
