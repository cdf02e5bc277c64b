"""A meter of what one worker does: a slow one among several is visible by it."""

import resource
import sys
import time

import torch


class Meter:
    """Measures a worker: the time of its blocks, and its peak memory.

    A slow worker is visible if the blocks have what a worker does alone, as reading data and the
    forward pass. In the backward pass of DDP all workers wait for the slowest.
    """

    def __init__(self) -> None:
        self.blocks, self.seconds = 0, 0.0

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self.start
        self.blocks += 1

    def read(self, steps: int | None = None) -> dict[str, float]:
        """Returns the milliseconds of a step since the last call, and the peak in MiB.

        A step is a block, unless the number of steps is given.
        """
        step_ms = 1e3 * self.seconds / max(self.blocks if steps is None else steps, 1)
        self.blocks, self.seconds = 0, 0.0
        return {"time/step_ms": step_ms, "memory/peak_mib": peak_mib()}


def peak_mib() -> float:
    """Returns the peak memory of this process on its GPU, or without one on its node."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
