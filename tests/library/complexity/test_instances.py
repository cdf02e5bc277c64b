"""Hard instances: closed forms against integrals, mixtures and drawn samples."""

import math

import pytest
import torch

from ebflow.complexity import errors
from ebflow.complexity.instances import HALF, far_mode, stratified, worst_eta
from ebflow.randomness import generator

from .cases import gaussian


@pytest.mark.parametrize("ratio", [8.0, 64.0, 512.0])
@pytest.mark.parametrize("size", [1, 4])
def test_a_missed_mode_costs_two_epsilon_and_no_quantile(ratio, size):
    """The mode is sought on the wrong side, or not at all; stable at R/σ = 512."""
    epsilon = 0.35
    eta = worst_eta(ratio, epsilon)
    truth = far_mode(ratio, eta, size=size)
    test = stratified(truth, 2000, generator=generator(0))
    assert math.sqrt(eta) * ratio * HALF**2 == pytest.approx(2 * epsilon)
    for wrong in (far_mode(-ratio, eta, size=size), gaussian(size)):
        found, exact = (one.smoothed(HALF).score(test.noisy) for one in (wrong, truth))
        found = (found - exact).norm(dim=1)
        scaled = HALF * errors.l2(found, test.weights)
        assert float(scaled) == pytest.approx(2 * epsilon, rel=0.02)
        assert HALF * errors.quantile(found, test.weights, 2 * eta) < 0.01


def test_the_weight_falls_with_the_squared_distance():
    assert worst_eta(8.0, 0.35) == pytest.approx(16 * 0.35**2 / 64)
    assert worst_eta(8.0, 0.35) == pytest.approx(4 * worst_eta(16.0, 0.35))
    with pytest.raises(ValueError, match="ratio: found 1.0 with epsilon 0.35"):
        worst_eta(1.0, 0.35)


def test_test_points_are_of_every_component_alike():
    test = stratified(far_mode(8.0, 1e-6), 10, generator=generator(5))
    assert torch.bincount(test.component).tolist() == [10, 10]
    assert float(test.weights.sum()) == pytest.approx(1)
    assert float(test.weights[test.component == 1].sum()) == pytest.approx(1e-6)
