"""Scores of samples of an unknown value, shared by imputations and predictions."""

import numpy as np

LEVEL = 0.9  # Nominal coverage of the intervals


def crps(draws: np.ndarray, y: np.ndarray) -> np.ndarray:
    r"""Returns the continuous ranked probability score of every element of ``y`` (\*S).

    It is :math:`E|X - y| - \tfrac12 E|X - X'|`, estimated without bias from the samples
    (K, \*S). The score of a single sample is its absolute error.

    Source: Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting, Raftery, 2007).
    """
    error, count = np.abs(draws - y).mean(0), len(draws)
    if count == 1:
        return error
    ranks = 2.0 * np.arange(count) - (count - 1)
    return error - np.tensordot(ranks, np.sort(draws, axis=0), 1) / (count * (count - 1))


def covered(draws: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns True where an element of ``y`` is in the interval of 90 % of its samples.

    The ends are the quantiles at rank p (K + 1), so 19 samples cover 90 % by their range.
    """
    ends = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    low, high = np.quantile(draws, ends, axis=0, method="weibull")
    return (low <= y) & (y <= high)
