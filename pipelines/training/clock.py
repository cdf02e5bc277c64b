"""Seconds of a training by what they were spent on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up wall seconds by name; a name measured inside another is not counted there."""

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

    def restore(self, totals: dict[str, float]) -> None:
        """Resumes from the totals of an earlier clock; laps begin now."""
        self.totals = {name: float(seconds) for name, seconds in totals.items()}
        self._laps = dict(self.totals)

    def lap(self, name: str) -> float:
        """Returns the seconds under a name since the last lap."""
        before, self._laps[name] = self._laps.get(name, 0.0), self.total(name)
        return self.total(name) - before
