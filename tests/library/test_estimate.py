"""Intervals of means."""

import math

import numpy as np
import pytest

from ebflow.estimate import student


def test_an_interval_is_students():
    found = student([1.0, 2.0, 4.0])
    assert found.value == pytest.approx(7 / 3)
    half = 4.302653 * math.sqrt(7 / 3) / math.sqrt(3)
    assert (found.value - found.low, found.high - found.value) == pytest.approx((half, half))
    assert math.isnan(student([1.0]).low) and student([1.0]).value == 1.0


def test_an_interval_covers_the_mean_in_19_of_20_samples():
    """False alarms of this test: below 1e-4 (binomial, 1000 samples, 4 standard deviations)."""
    rng = np.random.default_rng(0)
    found = [student(values) for values in rng.normal(3.0, 2.0, (1000, 4))]
    covered = np.mean([one.low <= 3.0 <= one.high for one in found])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 1000)
