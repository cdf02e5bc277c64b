"""Random classes: losses against direct sums, and the chance of a wrong choice."""

import math

import pytest
import torch

from ebflow.complexity.classes import RandomClass, class_crossing, easy_samples
from ebflow.complexity.instances import HALF
from ebflow.randomness import generator

SIZES = (1, 4, 9)


@pytest.mark.parametrize("mass", [0.3, 1.0])
def test_losses_are_direct_sums_of_squares(mass):
    rivals = RandomClass.sampled(5, 3, epsilon=0.4, mass=mass, generator=generator(0))
    x, residual = easy_samples(9, 3, generator=generator(1))
    labels = residual - x
    found = rivals.excess(x, residual, SIZES)
    for j in range(5):
        u = 0.5 * torch.erfc(-(x @ rivals.normals[j]) / math.sqrt(2))
        inside = ((u >= rivals.lows[j]) & (u < rivals.lows[j] + mass)).double()
        score = 0.8 / HALF * inside[:, None] * rivals.directions[j] - x
        losses = (score - labels).square().sum(1) - residual.square().sum(1)
        expected = torch.stack([losses[:m].sum() for m in SIZES])
        torch.testing.assert_close(found[:, j], expected)


def test_slabs_have_their_mass_and_residuals_do_not_depend_on_x():
    """Of 20,000 samples; five standard errors are let pass."""
    rivals = RandomClass.sampled(4, 2, epsilon=0.4, mass=0.25, generator=generator(2))
    x, residual = easy_samples(20_000, 2, generator=generator(3))
    shares = rivals._inside(x).double().mean(0)
    assert (shares - 0.25).abs().max() < 5 * (0.25 * 0.75 / 20_000) ** 0.5
    covariance = torch.cov(torch.cat([x, residual], 1).mT)
    torch.testing.assert_close(covariance, torch.eye(4).to(x), atol=0.05, rtol=0)


@pytest.mark.parametrize("mass", [0.24, 1.0])
def test_half_of_the_sets_find_the_truth_at_the_closed_form(mass):
    """Of 200 sets and 20 rivals in many dimensions; four binomial standard errors, 0.14."""
    m = round(class_crossing(20, 0.35, mass))
    right = 0
    for seed in range(200):
        noise = generator(seed)
        rivals = RandomClass.sampled(20, 40, epsilon=0.35, mass=mass, generator=noise)
        x, residual = easy_samples(m, 40, generator=noise)
        right += bool(rivals.excess(x, residual, [m]).min() > 0)
    assert right / 200 == pytest.approx(0.5, abs=0.14)


def test_the_closed_form_has_the_powers_of_the_bound():
    one = class_crossing(100, 0.4)
    assert class_crossing(100, 0.2) == pytest.approx(4 * one)
    assert class_crossing(100, 0.4, 0.1) == pytest.approx(10 * one)
    union = 2 * HALF**2 / 0.4**2 * math.log(2 * 100)
    assert one < union


def test_a_mass_is_a_probability():
    with pytest.raises(ValueError, match="mass: found 1.5, expected 0 < mass ≤ 1"):
        RandomClass.sampled(3, 2, epsilon=0.1, mass=1.5, generator=generator(0))
