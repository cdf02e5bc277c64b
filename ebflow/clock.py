"""Where the seconds of a training go."""

__all__ = ["Clock"]

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up wall seconds by name; a name measured inside another is taken out of it."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}
        self._laps: dict[str, float] = {}
        self._inner = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measures a block."""
        outer, self._inner = self._inner, 0.0
        begin = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begin
            self.totals[name] = self.total(name) + spent - self._inner
            self._inner = outer + spent

    def total(self, name: str) -> float:
        """Returns the seconds under a name."""
        return self.totals.get(name, 0.0)

    def lap(self, name: str) -> float:
        """Returns the seconds under a name since the last lap."""
        before, self._laps[name] = self._laps.get(name, 0.0), self.total(name)
        return self.total(name) - before
