r"""Efficiency of score matching on Gaussians against closed forms, by Monte Carlo.

The flow is u = w x in d dimensions, so its score is -λ x with λ = w², and every objective is a
quadratic of λ. Three evaluations give the minimizer of each of T trials with n samples. The
relative error of a variance from T trials is √(2/T); tests allow 4.5 of them (a false alarm in
1.5e5) and 10/n for what the asymptotic formulas leave out.
"""

import math

import pytest
import torch

from ebflow import objectives
from ebflow.architectures import dense
from ebflow.randomness import generator as derive

from .bijections.cases import seeded

SAMPLES, TRIALS = 500, 2000
TOLERANCE = 4.5 * math.sqrt(2 / TRIALS) + 10 / SAMPLES


def minimizers(objective, x, repeats=1, **options):
    """Returns the λ that minimizes the objective's mean over n samples, for each of T trials."""
    trials, samples, size = x.shape
    rows = x.repeat_interleave(repeats, 1).view(-1, size)
    means = [
        loss(objective, size, lam, rows, **options).view(trials, -1).mean(1)
        for lam in (0.0, 1.0, 2.0)
    ]
    slope, bend = (-3 * means[0] + 4 * means[1] - means[2]) / 2, means[0] - 2 * means[1] + means[2]
    return -slope / bend


@torch.no_grad()
def loss(objective, size, lam, rows, **options):
    """Returns the losses of rows at a precision λ, with the same noise at every λ."""
    flow = dense((size,), depth=1, sign=math.sqrt(lam))
    return objective(flow, rows, generator=derive(0, "noise"), **options)


def data(size, deviation=1.0, trials=TRIALS):
    return deviation * torch.randn(trials, SAMPLES, size, generator=seeded(1))


def close(found, expected, tolerance=TOLERANCE):
    assert abs(found / expected - 1) < tolerance, (found, expected)


@pytest.mark.parametrize(("sigma", "draws"), [(0.1, 1), (0.3, 3), (1.0, 1)])
def test_variance_of_denoising(sigma, draws):
    """n Var λ = V⁻² [2v²/V² + (v/σ² − 2v²/V²)/K], V = v + σ², for data N(0, v)."""
    v = 0.8
    estimates = minimizers(objectives.dsm, data(1, math.sqrt(v)), draws, sigma=sigma)
    smoothed = v + sigma**2
    efficient = 2 * v**2 / smoothed**2
    expected = (efficient + (v / sigma**2 - efficient) / draws) / smoothed**2
    close(SAMPLES * float(estimates.var()), expected)


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_denoising_fits_the_smoothed_density(sigma):
    """The mean of the estimates is 1/V to 4.5 standard errors and 10/n of it."""
    estimates = minimizers(objectives.dsm, data(1), sigma=sigma)
    target = 1 / (1 + sigma**2)
    error = 4.5 * float(estimates.std()) / math.sqrt(TRIALS) + 10 / SAMPLES * target
    assert abs(float(estimates.mean()) - target) < error


@pytest.mark.parametrize(("size", "slices"), [
    (1, 1),
    pytest.param(2, 5, marks=pytest.mark.slow),
    (4, 1),
    pytest.param(6, 4, marks=pytest.mark.slow),
])  # fmt: skip
def test_variance_of_slicing(size, slices):
    """n Var λ / λ² = 2/d + 2(1 − 1/d)/M for M Rademacher slices."""
    estimates = minimizers(objectives.ssm, data(size), slices=slices)
    close(SAMPLES * float(estimates.var()), 2 / size + 2 * (1 - 1 / size) / slices)


@pytest.mark.parametrize("objective", ["ssm_vr", "taylor_sm"])
@pytest.mark.parametrize("size", [1, 2, 6])
def test_an_exact_trace_is_maximum_likelihood(size, objective):
    """With Rademacher slices v·H·v = −λ d exactly, so λ = d / mean ‖x‖²: the MLE."""
    x = data(size, trials=50)
    expected = size / x.square().sum(2).mean(1)
    found = minimizers(objectives.OBJECTIVES[objective], x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
