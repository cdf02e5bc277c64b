"""How much of a machine a search keeps busy: processor time of its own processes."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

import psutil

from pipelines.cluster.environment import cpus

SAMPLE_S = 1.0
RAYLET = "raylet"


class Usage:
    """Sums the processor time of Ray's processes on this machine, while it is entered.

    These are the processes below the node's raylet, which launches all workers, or this process
    and its children where there is none; not Ray's own servers, and nothing that others run. Each
    is looked at every second, so that of one that ends a second at most is lost.
    """

    def __init__(self) -> None:
        self.root = _root()
        self.first: dict[tuple[int, float], float] = {}
        self.last: dict[tuple[int, float], float] = {}
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        self.first = dict(self._found())
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped.set()
        self.thread.join()
        self.last |= self._found()
        self.seconds = time.monotonic() - self.began

    @property
    def busy(self) -> float:
        """The share of all cores' time that these processes used."""
        spent = sum(used - self.first.get(one, 0.0) for one, used in self.last.items())
        return spent / (self.seconds * cpus())

    def _watch(self) -> None:
        while not self.stopped.wait(SAMPLE_S):
            self.last |= self._found()

    def _found(self) -> dict[tuple[int, float], float]:
        """Returns the processor time of each process in s, by its id and its start."""
        return dict(_times([self.root, *self.root.children(recursive=True)]))


def _times(processes: list[psutil.Process]) -> Iterator[tuple[tuple[int, float], float]]:
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            used = one.cpu_times()
            yield (one.pid, one.create_time()), used.user + used.system


def _root() -> psutil.Process:
    me = psutil.Process()
    return next((one for one in me.parents() if one.name() == RAYLET), me)
