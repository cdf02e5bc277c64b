"""A mean and its interval, as text and as JSON."""

import math
from collections.abc import Sequence

from ebflow.inference import Interval


def shown(found: Sequence[float | None], digits: int) -> str:
    """Returns the mean and half its interval, the mean alone where one value shows no interval.

    Nothing of a mean that is NaN. Ends may be missing or NaN.
    """
    value, _, high = found
    if math.isnan(value):
        return ""
    if high is None or math.isnan(high):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ± {high - value:.{digits}f}"


def fields(found: Interval) -> dict[str, float | None]:
    """Returns ``value``, ``low`` and ``high``, null where there is no number."""
    numbers = found._asdict().items()
    return {name: None if math.isnan(value) else value for name, value in numbers}
