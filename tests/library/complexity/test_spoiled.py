"""Spoiled scores: their errors, and the bound of what samplers make of them."""

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats

from ebflow.complexity.distances import total_variation
from ebflow.complexity.errors import l2, quantile
from ebflow.complexity.instances import HALF, far_mode
from ebflow.complexity.samplers import ladder, reverse_sde, step_length
from ebflow.complexity.spoiled import Spoiled, path_divergence
from ebflow.randomness import generator

from .cases import gaussian

LEVELS = ladder(22.0, HALF, 40)


def spoiled(clean, delta, epsilon, seed=0):
    return Spoiled.at(clean, LEVELS, delta=delta, epsilon=epsilon, generator=generator(seed))


@pytest.mark.parametrize("level", [0, 17, 39])
def test_the_spoiled_set_has_its_mass_and_both_errors_are_as_stated(level):
    clean, sigma = far_mode(16.0, 0.05, size=2), LEVELS[level]
    scores = spoiled(clean, 0.4, 0.2)
    x = clean.smoothed(sigma).sample(200_000, generator=generator(1))
    assert float(scores.is_spoiled(x, sigma).double().mean()) == pytest.approx(0.01, rel=0.1)
    gaps = sigma * (scores(x, sigma) - clean.smoothed(sigma).score(x)).norm(dim=-1)
    weights = torch.full_like(gaps, 1 / len(gaps))
    assert float(l2(gaps, weights)) == pytest.approx(scores.mean_square, rel=0.05)
    assert float(quantile(gaps, weights, 0.012)) == pytest.approx(scores.error)
    assert scores.mean_square > 10 * scores.error


def test_the_divergence_of_paths_is_the_square_of_epsilon():
    error = 0.3 / math.sqrt(math.log(22 / HALF))
    assert path_divergence(ladder(22.0, HALF, 4000), [error] * 4000) == pytest.approx(
        0.3**2, rel=0.01
    )


def test_a_gaussian_with_a_shifted_score_has_its_closed_form_and_keeps_the_bound():
    """The mean follows μ ← (1 − c/V) μ + c ε'/σ, and the variance its own recursion."""
    scores = spoiled(gaussian(), 0.0, 0.3)
    mean, variance = 0.0, LEVELS[0] ** 2
    for here, there in pairwise(LEVELS):
        c = step_length(here, there)
        shrink = 1 - c / (0.5 + here**2)
        mean = shrink * mean + c * scores.error / here
        variance = shrink**2 * variance + here**2 - there**2
    one = torch.ones(1, dtype=torch.float64)
    x = reverse_sde(scores, (200_000, 1), one, levels=LEVELS, generator=generator(2))
    assert float(x.mean()) == pytest.approx(mean, abs=0.01)
    assert float(x.std()) == pytest.approx(math.sqrt(variance), rel=0.01)
    exact = 2 * stats.norm.cdf(abs(mean) / (2 * math.sqrt(variance))) - 1
    measured = total_variation(x[:, 0], gaussian().smoothed(HALF))
    assert measured == pytest.approx(exact, abs=0.02)
    assert exact < scores.bound


@pytest.mark.parametrize("delta", [0.05, 0.3])
def test_paths_meet_the_spoiled_set_no_more_often_than_delta(delta):
    """The same noise with and without it: the share of other samples; 4 deviations."""
    clean, one, n = far_mode(16.0, 0.05), torch.ones(1, dtype=torch.float64), 20_000
    ends = [
        reverse_sde(spoiled(clean, share, 0.0), (n, 1), one, levels=LEVELS, generator=generator(3))
        for share in (0.0, delta)
    ]
    met = float((ends[0] != ends[1]).double().mean())
    assert 0.5 * delta < met < delta + 4 * math.sqrt(delta / n)


def test_shares_and_errors_out_of_range_are_refused():
    for delta, epsilon in ((1.0, 0.1), (0.1, -1.0)):
        with pytest.raises(ValueError, match="expected 0 ≤ delta < 1"):
            spoiled(gaussian(), delta, epsilon)
