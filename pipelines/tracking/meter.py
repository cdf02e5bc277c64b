"""A meter of what one worker does alone: a slow one among several is visible by it."""

import resource
import sys
import time

import torch

UNIT = 1 if sys.platform == "darwin" else 2**10  # Bytes in which the system counts memory


class Meter:
    """Measures a worker's memory, and the time of its blocks, as reading data or a forward pass.

    In the backward pass of DDP all workers wait for the slowest, so that their times are equal.
    """

    def __init__(self) -> None:
        self.blocks, self.seconds = 0, 0.0

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self.start
        self.blocks += 1

    def read(self, steps: int | None = None) -> dict[str, float]:
        """Returns the milliseconds of a step since the last call, and the peak memory in MiB.

        A step is a block, unless the number of steps is given.
        """
        step_ms = 1e3 * self.seconds / max(self.blocks if steps is None else steps, 1)
        self.blocks, self.seconds = 0, 0.0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
        if torch.cuda.is_initialized():
            peak = torch.cuda.max_memory_allocated()
        return {"time/step_ms": step_ms, "memory/peak_mib": peak / 2**20}
