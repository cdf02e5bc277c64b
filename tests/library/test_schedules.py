"""Learning-rate factors."""

import math

import pytest

from ebflow.loss import constant, cosine, epochs, falling, geometric, multistep, warmed


def test_cosine():
    for t in (0.0, 0.25, 0.5, 1.0):
        assert cosine(t) == pytest.approx((1 + math.cos(math.pi * t)) / 2)
    assert cosine(0) == 1 and cosine(1) == 0 and cosine(1.5) == 0


def test_constant():
    assert {constant(t) for t in (0.0, 0.3, 2.0)} == {1.0}


def test_geometric_falls_by_equal_factors():
    sigma = geometric(1.0, 0.01)
    for progress, value in {0.0: 1, 0.25: 10**-0.5, 0.5: 0.1, 1.0: 0.01, 1.5: 0.01}.items():
        assert sigma(progress) == pytest.approx(value)
    assert geometric(0.3, 0.3)(0.7) == pytest.approx(0.3)


@pytest.mark.parametrize("ends", [(0, 1), (1, 0), (-1, -1)])
def test_geometric_needs_positive_ends(ends):
    with pytest.raises(ValueError, match="geometric: found"):
        geometric(*ends)


def test_multistep_falls_at_equal_steps_and_stays():
    factor = multistep(0.5, 4)
    expected = {0.0: 1, 0.24: 1, 0.26: 0.5, 0.51: 0.25, 0.76: 0.125, 1.0: 0.0625, 1.5: 0.0625}
    for progress, value in expected.items():
        assert factor(progress) == pytest.approx(value)


def test_epochs_fall_at_their_ends_and_stay():
    factor = epochs(0.5, 10, 2)
    for step, value in {0: 1, 9: 1, 10: 0.5, 19: 0.5, 20: 0.25, 1000: 0.25}.items():
        assert factor(step) == value


def test_falling_at_given_progresses():
    factor = falling(0.1, (0.5, 0.75))
    for progress, value in {0.0: 1, 0.49: 1, 0.5: 0.1, 0.74: 0.1, 0.75: 0.01, 1.0: 0.01}.items():
        assert factor(progress) == pytest.approx(value)


def test_warmup_rises_linearly_under_the_schedule():
    factor = warmed(cosine, 0.2)
    assert factor(0.1) == pytest.approx(0.5 * cosine(0.1))
    assert factor(0.2) == pytest.approx(cosine(0.2))
    assert factor(0.7) == pytest.approx(cosine(0.7))


def test_no_warmup_is_the_schedule_itself():
    assert warmed(cosine, 0.0) is cosine
