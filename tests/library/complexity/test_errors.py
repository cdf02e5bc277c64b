"""Errors of scores: in mean square and at a quantile."""

import math

import pytest
import torch

from ebflow.complexity import errors
from ebflow.complexity.instances import Stratified

ERRORS = torch.tensor([3.0, 1.0, 2.0, 10.0], dtype=torch.float64)
WEIGHTS = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)


def test_the_mean_square_is_weighed():
    assert float(errors.l2(ERRORS, WEIGHTS)) == pytest.approx(math.sqrt(3.6 + 0.3 + 0.8 + 10))


@pytest.mark.parametrize(
    "delta, expected", [(0.0, 10.0), (0.05, 10.0), (0.1, 3.0), (0.3, 3.0), (0.55, 2.0), (0.9, 1.0)]
)
def test_the_quantile_is_the_least_size_that_is_rarely_exceeded(delta, expected):
    assert float(errors.quantile(ERRORS, WEIGHTS, delta)) == expected
    above = WEIGHTS[expected + 1e-9 <= ERRORS].sum()
    at_least = WEIGHTS[expected <= ERRORS].sum()
    assert above <= delta + 1e-12 and (at_least > delta - 1e-12)


@pytest.mark.parametrize("delta", [-0.1, 1.0])
def test_a_share_is_below_one(delta):
    with pytest.raises(ValueError, match="delta: found"):
        errors.quantile(ERRORS, WEIGHTS, delta)


def test_a_summary_is_of_errors_and_their_parts():
    test = Stratified(torch.zeros(4, 4), WEIGHTS, torch.tensor([0, 0, 0, 1]))
    found = errors.summary(ERRORS, test, (0.1, 0.05))
    squares = {"sigma_l2": 14.7, "sigma_l2_bulk": 4.7, "sigma_l2_far": 10}
    for name, square in squares.items():
        assert float(found[name]) == pytest.approx(math.sqrt(square))
    assert (float(found["sigma_d_0.1"]), float(found["sigma_d_0.05"])) == (3.0, 10.0)
