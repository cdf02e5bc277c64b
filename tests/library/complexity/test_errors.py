"""Errors of scores: in mean square and at a quantile."""

import math

import pytest
import torch

from ebflow.complexity import errors
from ebflow.complexity.instances import Stratified

ERRORS = torch.tensor([3.0, 1.0, 2.0, 10.0], dtype=torch.float64)
WEIGHTS = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)


def test_the_mean_square_is_weighed_and_may_be_of_a_part():
    assert float(errors.l2(ERRORS, WEIGHTS)) == pytest.approx(math.sqrt(3.6 + 0.3 + 0.8 + 10))
    part = torch.tensor([True, True, True, False])
    assert float(errors.l2(ERRORS, WEIGHTS, part)) == pytest.approx(math.sqrt(4.7))


@pytest.mark.parametrize(
    "delta, expected", [(0.0, 10.0), (0.05, 10.0), (0.1, 3.0), (0.3, 3.0), (0.55, 2.0), (0.9, 1.0)]
)
def test_the_quantile_is_the_least_size_that_is_rarely_exceeded(delta, expected):
    assert float(errors.quantile(ERRORS, WEIGHTS, delta)) == expected
    above = WEIGHTS[expected + 1e-9 <= ERRORS].sum()
    at_least = WEIGHTS[expected <= ERRORS].sum()
    assert above <= delta + 1e-12 and (at_least > delta - 1e-12)


def test_markovs_inequality():
    found = torch.rand(50, 200, generator=torch.Generator().manual_seed(0)).pow(4)
    weights = torch.full((200,), 1 / 200)
    for delta in (0.02, 0.1, 0.5):
        bound = errors.l2(found, weights) / math.sqrt(delta)
        assert (errors.quantile(found, weights, delta) <= bound).all()


def test_rows_are_taken_one_by_one():
    rows = torch.stack([ERRORS, 2 * ERRORS])
    assert errors.quantile(rows, WEIGHTS, 0.1).tolist() == [3.0, 6.0]
    sizes, mass = errors.survival(rows, WEIGHTS)
    assert sizes[1].tolist() == [20.0, 6.0, 4.0, 2.0]
    torch.testing.assert_close(mass[0], torch.tensor([0.1, 0.5, 0.7, 1.0]))


@pytest.mark.parametrize("delta", [-0.1, 1.0])
def test_a_share_is_below_one(delta):
    with pytest.raises(ValueError, match="delta: found"):
        errors.quantile(ERRORS, WEIGHTS, delta)


def test_a_summary_is_of_the_scaled_errors_and_their_parts():
    component = torch.tensor([0, 0, 0, 1])
    test = Stratified(ERRORS[:, None], ERRORS[:, None], WEIGHTS, component)
    found = errors.summary(ERRORS, test, 0.5, (0.1, 0.05))
    assert float(found["sigma_l2"]) == pytest.approx(0.5 * math.sqrt(14.7))
    assert float(found["sigma_l2_bulk"]) == pytest.approx(0.5 * math.sqrt(4.7))
    assert float(found["sigma_l2_far"]) == pytest.approx(0.5 * math.sqrt(10))
    assert float(found["sigma_truncated"]) == pytest.approx(
        float(errors.truncated(ERRORS / 2, WEIGHTS, 1))
    )
    assert (float(found["sigma_d_0.1"]), float(found["sigma_d_0.05"])) == (1.5, 5.0)
