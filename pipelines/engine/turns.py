"""Who may run now: jobs take turns, so that each has the cores or GPUs that it asks for."""

__all__ = ["ALONE", "Amounts", "Turns"]

import math
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

Amounts = Mapping[str, float]
"""How much by kind: ``CPU``, ``GPU``."""

ALONE: Amounts = {"CPU": math.inf, "GPU": math.inf}
"""The need of a job beside which no other one may run."""

J = TypeVar("J", bound=Hashable)


class Turns(Generic[J]):
    """Creates a queue, first come, first served; safe between threads.

    Arguments:
        room: Returns how much there is. A job that needs more runs alone.
    """

    def __init__(self, room: Callable[[], Amounts]) -> None:
        self.room = room
        self.waiting: deque[tuple[J, Amounts]] = deque()
        self.running: dict[J, Amounts] = {}
        self.turn = threading.Lock()
        self.closed = False

    def add(self, job: J, need: Amounts) -> list[J]:
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

    def _fits(self, need: Amounts) -> bool:
        if not self.running:
            return True
        room = self.room()
        taken = {kind: sum(n.get(kind, 0) for n in self.running.values()) for kind in need}
        return all(taken[kind] + need[kind] <= room.get(kind, 0) for kind in need)
