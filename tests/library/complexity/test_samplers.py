"""Samplers of diffusion: recursions of Gaussians, and the right distribution from its score."""

import math
from itertools import pairwise

import pytest
import torch

from ebflow.complexity.distances import distances
from ebflow.complexity.instances import HALF, far_mode
from ebflow.complexity.samplers import ladder, probability_flow, reverse_sde
from ebflow.errors import NonFinite
from ebflow.randomness import generator

from .cases import gaussian

ONE = torch.ones(1, dtype=torch.float64)


def exact(clean):
    return lambda x, sigma: clean.smoothed(sigma).score(x)


def flow(scores, shape, like, *, levels, generator):
    x = levels[0] * torch.randn(shape, generator=generator, dtype=like.dtype)
    return probability_flow(scores, x, levels=levels)


SAMPLERS = {"reverse": reverse_sde, "flow": flow}


def test_the_ladder_falls_geometrically():
    assert ladder(8.0, 0.5, 4) == pytest.approx([8, 4, 2, 1, 0.5])


@pytest.mark.parametrize("steps", [3, 30])
def test_the_variance_of_a_gaussian_follows_its_recursion(steps):
    """One step is x ← (1 − 2 (a − √(a b))/(τ² + σ²)) x + √(a − b) z; within 5 deviations."""
    levels = ladder(6.0, HALF, steps)
    variance = levels[0] ** 2
    for here, there in pairwise(levels):
        a, b = 1 + here**2, 1 + there**2
        shrink = 1 - 2 * (a - math.sqrt(a * b)) / (0.5 + here**2)
        variance = shrink**2 * variance + a - b
    n = 40_000
    x = reverse_sde(exact(gaussian()), (n, 1), ONE, levels=levels, generator=generator(0))
    assert abs(float(x.var()) / variance - 1) < 5 * math.sqrt(2 / n)


def test_many_steps_of_the_flow_scale_a_gaussian_by_its_deviations():
    """The exact solution is x √((τ² + σ_N²)/(τ² + σ₁²)); Heun's error falls as 1/N²."""
    x = torch.linspace(-9, 9, 7, dtype=torch.float64)[:, None]
    expected = x * math.sqrt((0.5 + HALF**2) / (0.5 + 36))
    gaps = [
        float((probability_flow(exact(gaussian()), x, levels=ladder(6.0, HALF, n)) - expected)
              .abs().max())
        for n in (40, 80)
    ]  # fmt: skip
    assert gaps[0] < 0.01 and gaps[0] / gaps[1] == pytest.approx(4, rel=0.2)


def test_one_step_is_the_exponential_integrator_of_the_process():
    """In the process's own coordinates: x ← eʰ x + 2 (eʰ − 1) s_t + √(e²ʰ − 1) z."""
    t, h, clean = 0.9, 0.3, far_mode(4.0, 0.2)
    here, there = (math.sqrt(math.exp(2 * u) - 1) for u in (t, t - h))
    noise = generator(1)
    start = here * torch.randn(5, 1, generator=noise, dtype=torch.float64)
    z = torch.randn(5, 1, generator=noise, dtype=torch.float64)
    found = reverse_sde(exact(clean), (5, 1), ONE, levels=[here, there], generator=generator(1))
    score = math.exp(t) * clean.smoothed(here).score(start)
    y = math.exp(-t) * start
    y = math.exp(h) * y + 2 * (math.exp(h) - 1) * score + math.sqrt(math.exp(2 * h) - 1) * z
    torch.testing.assert_close(found, math.exp(t - h) * y)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_true_score_gives_the_true_distribution(name):
    """8,000 samples in the plane: total variation near its floor, and the far mode's mass."""
    clean = far_mode(8.0, 0.1, size=2)
    levels = ladder(24.0, HALF, 60)
    x = SAMPLERS[name](exact(clean), (8000, 2), ONE, levels=levels, generator=generator(2))
    found = distances(x, clean.smoothed(HALF), generator=generator(3))
    assert found.tv < 0.06 and found.far_mass == pytest.approx(0.1, abs=0.02)


def test_samples_that_are_not_finite_are_an_error():
    with pytest.raises(NonFinite, match="reverse_sde"):
        reverse_sde(
            lambda x, sigma: x**5, (3, 1), ONE, levels=ladder(9.0, 1.0, 9), generator=generator(0)
        )
