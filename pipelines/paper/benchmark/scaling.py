r"""How step times grow with the dimension.

Over large sizes a step takes about :math:`t = e^a D^b`: b is near 2 where matrix products of a
batch dominate, and near 3 where factorisations do. A line is fitted to
:math:`\log t = a + b \log D`. An objective with the lesser b overtakes the other at a *crossover*.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from ebflow.inference import Interval
from pipelines.paper.benchmark.timing import Timing


def exponent(
    timings: Sequence[Timing], label: str, *, least: int = 784, level: float = 0.95
) -> Interval | None:
    """Returns the exponent b, fitted to the step times of ``label``; None below three sizes.

    The interval is Student's, of n − 2 degrees of freedom: it takes what is off the line for
    independent noise, though some of it is curvature.

    Arguments:
        timings: Rows of any labels and sizes; a size may stand in several.
        label: The rows to fit.
        least: The least D that is fitted.
        level: The interval's probability.
    """
    rows = [row for row in timings if row.label == label and row.size >= least]
    if len({row.size for row in rows}) < 3:
        return None
    fit = stats.linregress(*np.log([(row.size, row.ms) for row in rows]).T)
    reach = stats.t.ppf((1 + level) / 2, len(rows) - 2) * fit.stderr
    return Interval(float(fit.slope), float(fit.slope - reach), float(fit.slope + reach))


def crossover(timings: Sequence[Timing], label: str, reference: str = "ml") -> float | None:
    """Returns the D from which on a step of ``label`` is as fast as one of ``reference``.

    The logarithm of the ratio of their times is interpolated in log D, between the largest size
    at which ``label`` is slower and the next. None if it is slower at the largest size of both, or
    at none.
    """
    times, others = _least(timings, label), _least(timings, reference)
    sizes = sorted(times.keys() & others.keys())
    leads = [math.log(others[size] / times[size]) for size in sizes]
    slower = [index for index, lead in enumerate(leads) if lead < 0]
    if not slower or slower[-1] == len(sizes) - 1:
        return None
    pair = slice(slower[-1], slower[-1] + 2)
    return float(np.exp(np.interp(0.0, leads[pair], np.log(sizes[pair]))))


def _least(timings: Sequence[Timing], label: str) -> dict[int, float]:
    """Returns the least step time of every size."""
    slowest_first = sorted(timings, key=lambda row: -row.ms)
    return {row.size: row.ms for row in slowest_first if row.label == label}
