"""Who may run now: jobs take turns, so that each has the cores or GPUs that it asks for."""

__all__ = ["ALONE", "Turns"]

import math
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

ALONE = math.inf
"""The need of a job beside which no other one may run."""

J = TypeVar("J", bound=Hashable)


class Turns(Generic[J]):
    """Creates a queue, first come, first served; safe between threads.

    Arguments:
        room: Returns how much there is. A job that needs more runs alone.
    """

    def __init__(self, room: Callable[[], float]) -> None:
        self.room = room
        self.waiting: deque[tuple[J, float]] = deque()
        self.running: dict[J, float] = {}
        self.turn = threading.Lock()
        self.closed = False

    def add(self, job: J, need: float) -> list[J]:
        """Queues a job; returns what may start now."""
        with self.turn:
            self.waiting.append((job, need))
            return self._start()

    def done(self, job: J) -> list[J]:
        """Takes note that a job ended; returns what may start now."""
        with self.turn:
            del self.running[job]
            return self._start()

    def close(self) -> None:
        """Lets nothing start from now on."""
        with self.turn:
            self.closed = True

    def _start(self) -> list[J]:
        started = []
        while not self.closed and self.waiting and self._fits(self.waiting[0][1]):
            job, need = self.waiting.popleft()
            self.running[job] = need
            started.append(job)
        return started

    def _fits(self, need: float) -> bool:
        return not self.running or sum(self.running.values()) + need <= self.room()
