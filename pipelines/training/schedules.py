"""Learning rates and hyperparameters as functions of progress, or of the steps done."""

from collections.abc import Callable, Sequence

from ebflow.loss import Schedule


def geometric(start: float, end: float) -> Schedule:
    """Returns start · (end / start)ᵗ, equal factors in equal times; for a noise scale.

    Raises:
        ValueError: unless both are positive.
    """
    if not (start > 0 and end > 0):
        raise ValueError(f"geometric: found {start} and {end}, expected positive numbers")
    return lambda progress: start * (end / start) ** min(progress, 1.0)


def multistep(gamma: float, milestones: int) -> Schedule:
    """Returns a schedule that multiplies by ``gamma`` at ``milestones`` equal steps to the end."""
    return lambda progress: gamma ** min(int(progress * milestones), milestones)


def falling(gamma: float, at: Sequence[float]) -> Schedule:
    """Returns a schedule that multiplies by ``gamma`` at each of some progresses."""
    return lambda progress: gamma ** sum(progress >= when for when in at)


def epochs(gamma: float, length: int, count: int) -> Callable[[int], float]:
    """Returns a factor of the number of steps done: ``gamma`` at the ends of the first epochs.

    Arguments:
        gamma: The factor at each of them.
        length: Steps of an epoch.
        count: The number of epochs at whose ends it falls; it is constant afterwards.
    """
    return lambda step: gamma ** min(step // length, count)
