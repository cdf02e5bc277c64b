"""Conditional laws that are known: Gaussians, a mixture, a grid. Every z is one of a draw's mean
over independent chains, so that a bound of 4.5 raises a false alarm once in 150,000 numbers."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

import ebflow
from ebflow import imputation
from ebflow.bijections import Cells, ColumnCells, ConditionalAffine, Dense
from ebflow.chains import Chains
from ebflow.imputation import impute
from ebflow.randomness import generator
from ebflow.tables import Column, Columns

BOUND = 4.5
NAN = math.nan
CHAINS = 2_000


def gaussian(dim=4, seed=0):
    """A flow that is a Gaussian with strong correlations, its mean and covariance."""
    draws = generator(seed, "truth")
    root = torch.eye(dim, dtype=torch.float64)
    root += 1.6 / dim**0.5 * torch.randn(dim, dim, generator=draws, dtype=torch.float64).tril(-1)
    mean = torch.randn(dim, generator=draws, dtype=torch.float64)
    flow = ebflow.Flow((dim,), [Dense(root, -root @ mean)]).double()
    return flow, mean, torch.linalg.inv(root.mT @ root)


def conditional(mean, covariance, row):
    """The mean and the covariance of what a row misses."""
    m, o = row.isnan(), ~row.isnan()
    gain = covariance[m][:, o] @ torch.linalg.inv(covariance[o][:, o])
    given = covariance[m][:, m] - gain @ covariance[o][:, m]
    return mean[m] + gain @ (row[o] - mean[o]), given


@pytest.mark.parametrize("row", [[0.3, NAN, -1.2, NAN], [NAN] * 4, [0.5, NAN, NAN, -1.0] * 3])
def test_a_gaussians_conditional_mean_and_covariance(row):
    flow, mean, covariance = gaussian(len(row))
    row = torch.tensor([row], dtype=torch.float64)
    found = impute(flow, row, generator=generator(1), draws=CHAINS, steps=10, warmup=5)
    drawn = found.draws[0][:, row[0].isnan()]
    expected, given = conditional(mean, covariance, row[0])
    errors = (drawn.mean(0) - expected) / (given.diagonal() / CHAINS).sqrt()
    assert errors.abs().max() < BOUND
    spread = torch.outer(given.diagonal(), given.diagonal()) + given**2
    errors = (drawn.T.cov().reshape(given.shape) - given) / (spread / CHAINS).sqrt()
    assert errors.abs().max() < BOUND
    assert 0.5 < found.acceptance[0] < 0.9 and found.r_hat[0] < 1.08


@pytest.mark.parametrize("together", [1, 512])
def test_who_waits_is_told_how_far_it_is(monkeypatch, together):
    """Rows whose chains meet early leave out the last rounds."""
    monkeypatch.setattr(imputation, "ROWS", together)
    flow, _, _ = gaussian()
    rows = torch.tensor([[0.3, NAN, -1.2, NAN], [NAN] * 4], dtype=torch.float64)
    options, shares = {"draws": 5, "steps": 4, "warmup": 2, "doublings": 0}, []
    found = impute(flow, rows, generator=generator(1), progress=shares.append, **options)
    assert shares == sorted(shares) and shares[-1] <= 1 + 1e-9
    assert shares[0] == pytest.approx(4 / 34 * min(1, together / 2))
    assert torch.equal(found.draws, impute(flow, rows, generator=generator(1), **options).draws)


def shifted(flow):
    """The same Gaussian with a mean that follows a context of two numbers, and by how much."""
    shift = ConditionalAffine((4,), 2)
    line = 3 * torch.randn(4, 2, generator=generator(7))
    shift.line.weight.data[4:] = line
    given = ebflow.Flow((4,), [*flow.layers, shift], context=2).double()
    root = flow.layers[0].weight.detach()
    return given, -torch.linalg.solve(root, line.double())


@pytest.mark.parametrize("conditional_flow", [False, True])
def test_rows_are_answered_each_by_its_own_pattern(conditional_flow):
    flow, mean, covariance = gaussian()
    context, means = None, mean.expand(3, 4)
    if conditional_flow:
        flow, slope = shifted(flow)
        context = torch.tensor([[1.0, -2.0], [0.0, 0.0], [-1.5, 0.5]]).double()
        means = mean + context @ slope.mT
    rows = torch.tensor(
        [[0.3, NAN, -1.2, NAN], [0.0, 1.0, 2.0, 3.0], [NAN, -1.0, 0.4, 1.0]], dtype=torch.float64
    )
    found = impute(
        flow, rows, context=context, generator=generator(2), draws=400, steps=10, warmup=5
    )
    observed = ~rows.isnan()
    for row, draws, seen in zip(rows, found.draws, observed, strict=True):
        assert (draws[:, seen] == row[seen]).all() and draws.isfinite().all()
    for k in (0, 2):
        expected, given = conditional(means[k], covariance, rows[k])
        errors = found.draws[k][:, ~observed[k]].mean(0) - expected
        assert (errors / (given.diagonal() / 400).sqrt()).abs().max() < BOUND
    assert found.acceptance[1] == found.r_hat[1] == 1 and found.acceptance.min() > 0.5


def test_frames_and_arrays_are_answered_as_tensors():
    flow, context = shifted(gaussian()[0])[0], torch.tensor([[1.0, -2.0], [0.0, 0.5]]).double()
    rows = torch.tensor([[0.3, NAN, -1.2, NAN], [NAN, 1.0, 2.0, 3.0]], dtype=torch.float64)
    columns, given = ([Column(n, "number", "float64") for n in names] for names in ("abcd", "uv"))
    flow.columns = Columns(columns, "pandas", Columns(given))
    quick = {"draws": 3, "steps": 4, "warmup": 2}
    frame = pd.DataFrame(np.concatenate([context, rows], 1), columns=[*"uvabcd"])
    expected = impute(flow, rows, context=context, generator=generator(2), **quick)
    for x, c in ((rows.numpy(), context.numpy()), (frame, None)):
        found = impute(flow, x, context=c, generator=generator(2), **quick)
        assert torch.equal(found.draws, expected.draws)


def test_modes_get_their_weights():
    """Two modes 14 deviations apart, whose weights the observed element tells."""
    weights, means = torch.tensor([0.9, 0.1]), torch.tensor([[-4.0, 0.0], [10.0, 1.0]])
    base = ebflow.GaussianMixture(weights.double(), means.double(), torch.ones(2).double())
    flow = ebflow.Flow((2,), [], base=base).double()
    row = torch.tensor([[NAN, 0.8]], dtype=torch.float64)
    found = impute(flow, row, generator=generator(3), draws=CHAINS, steps=10, warmup=5)
    odds = weights * Normal(means[:, 1], 1.0).log_prob(torch.tensor(0.8)).exp()
    share = float(odds[1] / odds.sum())
    right = (found.draws[0, :, 0] > 0).double().mean()
    assert abs(right - share) < BOUND * math.sqrt(share * (1 - share) / CHAINS)
    assert found.r_hat[0] < 1.1


def grid():
    """The sum of a whole number and noise on [0, 1), and a real, are a Gaussian."""
    root = torch.linalg.cholesky(torch.tensor([[2.0, 1.2], [1.2, 1.0]], dtype=torch.float64))
    layers = [
        Cells([ColumnCells(0.0, 1.0), ColumnCells()]),
        Dense(torch.linalg.inv(root), torch.zeros(2, dtype=torch.float64)),
    ]
    return ebflow.Flow((2,), layers, n_preprocessing=1).double()


def test_what_is_missing_on_a_grid_has_its_masses():
    row = torch.tensor([[NAN, 0.5]], dtype=torch.float64)
    found = impute(grid(), row, generator=generator(4), draws=CHAINS, steps=10, warmup=5)
    whole = found.draws[0, :, 0]
    assert (whole == whole.round()).all()
    law = Normal(1.2 * 0.5, math.sqrt(2 - 1.2**2))
    for k in (-1.0, 0.0, 1.0):
        mass = float(law.cdf(torch.tensor(k + 1)) - law.cdf(torch.tensor(k)))
        share = (whole == k).double().mean()
        assert abs(share - mass) < BOUND * math.sqrt(mass * (1 - mass) / CHAINS)


def test_what_is_observed_on_a_grid_is_a_cell():
    """The mean given a cell, by quadrature; that given its middle is 8 standard errors away."""
    row = torch.tensor([[5.0, NAN]], dtype=torch.float64)
    found = impute(grid(), row, generator=generator(5), draws=CHAINS, steps=10, warmup=10)
    at = torch.linspace(5, 6, 1001, dtype=torch.float64)
    mass = Normal(0.0, math.sqrt(2)).log_prob(at).exp()
    mean = float((mass * 0.6 * at).sum() / mass.sum())
    drawn = found.draws[0, :, 1]
    error = float(drawn.std()) / math.sqrt(CHAINS)
    assert abs(drawn.mean() - mean) < BOUND * error < 8 * error < abs(0.6 * 5.5 - mean)


def test_chains_that_have_not_met_are_told(monkeypatch):
    """Modes that no move reaches: of a Gaussian that is as wide as both, and none of a mixture."""
    moves, plain = [], Chains._move
    move = lambda chains, leaps: moves.append(leaps) or plain(chains, leaps=leaps)  # noqa: E731
    monkeypatch.setattr(Chains, "_move", move)
    monkeypatch.setattr(imputation, "COMPONENTS", 1)
    means = torch.tensor([[-3e4, 0.0], [3e4, 0.0]], dtype=torch.float64)
    base = ebflow.GaussianMixture(torch.ones(2).double(), means, torch.ones(2).double())
    flow = ebflow.Flow((2,), [], base=base).double()
    row = torch.tensor([[NAN, 0.0]], dtype=torch.float64)
    found = impute(flow, row, generator=generator(6), draws=10, steps=8, warmup=8)
    expected = imputation.SETTLE * [False] + 4 * 16 * [False] + 3 * 16 * [True]
    assert found.r_hat[0] > 2 and moves == expected


def test_rows_whose_chains_have_not_met_are_drawn_again_by_more_steps(monkeypatch):
    """From few steps between modes that touch, chains of most rows meet in the end."""
    monkeypatch.setattr(imputation, "COMPONENTS", 1)
    means = torch.tensor([[-12.0, 0.0], [12.0, 0.0]], dtype=torch.float64)
    base = ebflow.GaussianMixture(torch.ones(2).double(), means, torch.ones(2).double())
    flow = ebflow.Flow((2,), [], base=base).double()
    rows = torch.tensor([[NAN, 0.0]], dtype=torch.float64).repeat(64, 1)
    options = {"draws": 5, "steps": 4, "warmup": 4}
    once, thrice = (
        impute(flow, rows, generator=generator(7), doublings=k, **options) for k in (0, 3)
    )
    apart = [(found.r_hat > 1.1).double().mean() for found in (once, thrice)]
    assert apart[1] < 0.6 * apart[0]
    met = once.r_hat <= 1.1
    assert thrice.draws[met].equal(once.draws[met])


def test_the_seed_decides():
    flow, row = gaussian()[0], torch.tensor([[0.3, NAN, -1.2, NAN]], dtype=torch.float64)
    one, two, other = (
        impute(flow, row, generator=generator(seed), draws=3, steps=10, warmup=10).draws
        for seed in (0, 0, 1)
    )
    assert one.equal(two) and not one.equal(other)


def test_a_trained_flow_of_float32_rows(x_dim=5):
    truth = MultivariateNormal(torch.zeros(x_dim), 0.7 + 0.3 * torch.eye(x_dim))
    torch.manual_seed(0)
    x = truth.sample((400,)).float()
    flow = ebflow.fit(x, steps=40, options={"depth": 1}, marginals=False, progress=False)
    holes = x[:20].clone()
    holes[:, 1:3] = NAN
    found = impute(flow, holes, generator=generator(0), draws=4, steps=10, warmup=5)
    assert found.draws.dtype == torch.float32 and found.draws.isfinite().all()
    errors = found.draws.mean(1)[:, 1:3] - x[:20, 1:3]
    assert errors.square().mean().sqrt() < 0.9 * x[:20, 1:3].std()


@pytest.mark.parametrize("options", [{"draws": 0}, {"steps": 7}, {"steps": 2}, {"warmup": 0}])
def test_numbers_out_of_range(options):
    with pytest.raises(ValueError, match="draws, steps, warmup: found"):
        impute(gaussian()[0], torch.zeros(1, 4).double(), generator=generator(0), **options)


def test_rows_of_another_width():
    with pytest.raises(ValueError, match=r"x: found shape \(1, 3\)"):
        impute(gaussian()[0], torch.zeros(1, 3).double(), generator=generator(0))
