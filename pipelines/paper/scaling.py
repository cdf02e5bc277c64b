r"""How step times grow with the dimension.

Over large sizes a step takes about :math:`t = e^a D^b`: b is near 2 where matrix products of a
batch dominate, and near 3 where factorisations do. A line is fitted to
:math:`\log t = a + b \log D`. An objective with the lesser b overtakes the other at a *crossover*.
"""

import math
from collections.abc import Mapping

import numpy as np
from scipy import stats

from ebflow.inference import Confidence

LEAST = 256
"""The least D that exponents are fitted to: below, a step has a floor that is no power of D."""

Times = Mapping[int, float]
"""Step times in milliseconds by D."""


def exponent(times: Times) -> Confidence | None:
    """Returns the exponent b; None below three sizes.

    Its interval takes what is off the line for independent noise, though some of it is curvature.
    """
    rows = [(size, ms) for size, ms in times.items() if size >= LEAST]
    if len(rows) < 3:
        return None
    fit = stats.linregress(*np.log(rows).T)
    return Confidence(float(fit.slope), float(fit.stderr), len(rows) - 2)


def crossover(times: Times, reference: Times) -> float | None:
    """Returns the D from which on a step is faster than another: the least D if everywhere.

    The logarithm of the ratio of their times is interpolated in log D, between the largest size
    at which it is slower and the next. None if it is slower at the largest size of both.
    """
    sizes = sorted(times.keys() & reference.keys())
    leads = [math.log(reference[size] / times[size]) for size in sizes]
    slower = [index for index, lead in enumerate(leads) if lead < 0]
    if not slower:
        return float(sizes[0])
    if slower[-1] == len(sizes) - 1:
        return None
    pair = slice(slower[-1], slower[-1] + 2)
    return float(np.exp(np.interp(0.0, leads[pair], np.log(sizes[pair]))))
