"""Learning-rate factors and hyper-parameters as functions of training progress in [0, 1].

Progress is the fraction of the steps, or of the seconds where training is bounded by time, so
that a schedule ends where training ends.
"""

__all__ = ["Schedule", "constant", "cosine", "falling", "geometric", "multistep", "warmed"]

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    """Returns 1."""
    return 1.0


def cosine(progress: float) -> float:
    """Returns (1 + cos π t) / 2, from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def geometric(start: float, end: float) -> Schedule:
    """Returns start · (end / start)ᵗ, equal factors in equal times; for a noise scale.

    Raises:
        ValueError: unless both are positive.
    """
    if not (start > 0 and end > 0):
        raise ValueError(f"geometric: found {start} and {end}, expected positive numbers")
    return lambda progress: start * (end / start) ** min(progress, 1.0)


def multistep(gamma: float, milestones: int, until: float = 1.0) -> Schedule:
    """Returns a schedule that multiplies by ``gamma`` at ``milestones`` equal steps to ``until``.

    The paper multiplies at the end of each of the first epochs and is constant afterwards.
    """

    def factor(progress: float) -> float:
        return gamma ** min(int(progress / until * milestones), milestones)

    return factor


def warmed(schedule: Schedule, warmup: float) -> Schedule:
    """Returns ``schedule`` under a linear rise over the first ``warmup`` of training."""
    if not warmup:
        return schedule
    return lambda progress: schedule(progress) * min(1.0, progress / warmup)


def falling(gamma: float, at: Sequence[float]) -> Schedule:
    """Returns a schedule that multiplies by ``gamma`` at each of some progresses."""
    return lambda progress: gamma ** sum(progress >= when for when in at)
