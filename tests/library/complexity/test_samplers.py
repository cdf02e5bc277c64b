"""Samplers of diffusion: exact recursions of Gaussians, and the right law from the right score."""

import math
from itertools import pairwise

import pytest
import torch

from ebflow.complexity import mixture_distances
from ebflow.complexity.instances import far_mode
from ebflow.complexity.samplers import ladder, probability_flow, reverse_sde
from ebflow.complexity.truths import Truth
from ebflow.errors import NonFinite
from ebflow.randomness import generator

from .cases import gaussian


def flow(score, shape, like, *, levels, generator):
    x = levels[0] * torch.randn(shape, generator=generator).to(like)
    return probability_flow(score, x, levels=levels)


SAMPLERS = {"reverse": reverse_sde, "flow": flow}


def test_the_ladder_falls_geometrically():
    levels = ladder(8.0, 0.5, 4)
    assert levels == pytest.approx([8, 4, 2, 1, 0.5])


@pytest.mark.parametrize("steps", [3, 30])
def test_the_variance_of_a_gaussian_follows_its_recursion(steps):
    """One step is x ← (1 − 2 (a − √(a b))/(τ² + σ²)) x + √(a − b) z; 5 deviations are let pass."""
    truth, levels = gaussian(), ladder(6.0, math.sqrt(0.5), steps)
    variance = levels[0] ** 2
    for here, there in pairwise(levels):
        a, b = 1 + here**2, 1 + there**2
        shrink = 1 - 2 * (a - math.sqrt(a * b)) / (0.5 + here**2)
        variance = shrink**2 * variance + a - b
    n = 40_000
    x = reverse_sde(Truth(truth.clean).score, (n, 1), torch.ones(1), levels=levels,
                    generator=generator(0))  # fmt: skip
    assert abs(float(x.var()) / variance - 1) < 5 * math.sqrt(2 / n)


def test_one_step_is_the_exponential_integrator_of_the_process():
    """In the process's own coordinates: x ← eʰ x + 2 (eʰ − 1) s_t + √(e²ʰ − 1) z."""
    t, h, clean = 0.9, 0.3, far_mode(4.0, 0.2).clean
    here, there = (math.sqrt(math.exp(2 * u) - 1) for u in (t, t - h))
    levels, like = [here, there], torch.ones(1)
    start = here * torch.randn(5, 1, generator=generator(1))
    found = reverse_sde(Truth(clean).score, (5, 1), like, levels=levels, generator=generator(1))
    g = generator(1)
    torch.randn(5, 1, generator=g)
    z = torch.randn(5, 1, generator=g)
    y = math.exp(-t) * start
    score = math.exp(t) * clean.smoothed(here).score(start)
    y = math.exp(h) * y + 2 * (math.exp(h) - 1) * score + math.sqrt(math.exp(2 * h) - 1) * z
    torch.testing.assert_close(found, math.exp(t - h) * y)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_true_score_gives_the_true_law(name):
    """8,000 samples in the plane: total variation near its floor, and the far mode's mass."""
    instance = far_mode(8.0, 0.1, size=2)
    levels = ladder(24.0, instance.sigma, 60)
    x = SAMPLERS[name](Truth(instance.clean).score, (8000, 2), torch.ones(1), levels=levels,
                       generator=generator(2))  # fmt: skip
    found = mixture_distances.distances(x, instance.smoothed, generator=generator(3))
    assert found["tv"] < 0.06 and found["far_mass"] == pytest.approx(0.1, abs=0.02)


def test_samples_that_leave_every_bound_are_told():
    with pytest.raises(NonFinite, match="reverse_sde"):
        reverse_sde(lambda x, sigma: x**5, (3, 1), torch.ones(1), levels=ladder(9.0, 1.0, 9),
                    generator=generator(0))  # fmt: skip
