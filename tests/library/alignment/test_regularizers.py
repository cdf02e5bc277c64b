"""Regularizers: formulas, the disguise of the one-sided estimator, diagnoses."""

from functools import partial

import pytest
import torch

from ebflow.alignment.regularizers import (
    anti_score_matching,
    equivalent_strength,
    gradient_norm,
    score_matching,
    smallest_trace,
)
from ebflow.density import EnergyFunction
from ebflow.objectives import ESTIMATORS, draw_directions, taylor_sm
from ebflow.randomness import generator as derive

from ..bijections.cases import seeded

SIZE = 4


def quadratic():
    """Returns f = g·x − 3 ‖x‖² / 2: tr H = −12 everywhere."""
    gradient = torch.linspace(-1, 1.5, SIZE)
    return EnergyFunction(lambda x: 1.5 * x.square().sum(1) - x @ gradient), gradient


def points(size=6):
    return torch.rand(size, SIZE, generator=seeded())


def test_score_matching_is_the_objective_with_a_floor_and_a_penalty():
    density, x = quadratic()[0], points()
    objective = taylor_sm(density, x, generator=derive(0))
    half = density.score(x).square().sum(1) / 2
    h = (objective - half).clamp(min=-5.0)
    found = score_matching(density, x, generator=derive(0), stability=0.1, floor=-5.0)
    torch.testing.assert_close(found, half + h + 0.1 * h**2)


def test_gradient_norm():
    density, gradient = quadratic()
    found = gradient_norm(density, points(), generator=derive(0))
    torch.testing.assert_close(found, (gradient - 3 * points()).square().sum(1) / 2)


def test_the_ceiling_bounds_every_sample_before_the_mean():
    density, x = quadratic()[0], points()
    options = {"estimator": "taylor", "directions": "gaussian", "step": 0.1}
    u = draw_directions("gaussian", 1, x, derive(0))
    traces = ESTIMATORS["taylor"](density, x, u, 0.1)[1][0]
    ceiling = float(traces.detach().median())
    found = anti_score_matching(density, x, generator=derive(0), ceiling=ceiling, **options)
    torch.testing.assert_close(found, -traces.clamp(max=ceiling))
    assert (found == -ceiling).sum() == 4


def test_published_settings_are_a_gradient_norm_penalty():
    settings = {"stability": 1e-3, "slices": 1, "step": 0.01}
    assert equivalent_strength(1e-3, estimator="taylor", **settings) == pytest.approx(0.081)
    assert equivalent_strength(1e-3, estimator="taylor_cv", **settings) == 1e-3


@pytest.mark.parametrize("slices", [1, 3])
def test_the_disguise_is_the_excess_of_the_penalty(slices):
    """E[one-sided] − E[control variate] of the whole penalty is ½‖g‖² · 8 μ / (K σ²).

    A mean of 200,000 has a standard error of 0.6 %; 3 % are allowed, 5 of them.
    """
    density, gradient = quadratic()
    x = torch.zeros(200_000, SIZE)
    settings = {"stability": 1e-3, "slices": slices, "step": 0.01}
    found = partial(score_matching, density, x, directions="gaussian", **settings)
    one, cv = (found(generator=derive(1), estimator=e) for e in ("taylor", "taylor_cv"))
    excess = equivalent_strength(1.0, estimator="taylor", **settings) - 1
    expected = excess * gradient.square().sum() / 2
    assert float((one - cv).detach().mean()) == pytest.approx(float(expected), rel=0.03)


def test_scores_of_smoothed_points_reach_the_floor_and_no_lower():
    """One point with noise s: E tr H = −D/s² exactly."""
    s = 0.2
    density = EnergyFunction(lambda x: x.square().sum(1) / (2 * s**2))
    trace = float(density.at(points()).laplacian().detach().mean())
    assert trace == pytest.approx(smallest_trace(SIZE, s))
