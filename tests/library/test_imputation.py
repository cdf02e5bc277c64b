"""Imputations against known conditional distributions: Gaussians, a mixture, grids, categories.

Every z is that of a mean of independent samples: a bound of 4.5 raises a false alarm once in
150,000 numbers. ``sweeps`` forces all rows through sweeps.
"""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

import ebflow
from ebflow import imputation
from ebflow.bijections import Cells, ColumnCells, ConditionalAffine, Dense
from ebflow.errors import NonFinite
from ebflow.imputation import impute
from ebflow.randomness import generator
from ebflow.tables import Column, Columns

from .bijections.cases import stirred
from .test_explanation import of_categories

BOUND = 4.5
NAN = math.nan
SAMPLES = 1_000


@pytest.fixture(params=["pool", "sweeps"])
def way(request, monkeypatch):
    """Samples from the pool alone, or by sweeps."""
    if request.param == "sweeps":
        monkeypatch.setattr(imputation, "ENOUGH", math.inf)
    return request.param


def gaussian(dim=4, seed=0):
    """Returns a flow that is a Gaussian with strong correlations, its mean and covariance."""
    noise = generator(seed, "truth")
    root = torch.eye(dim, dtype=torch.float64)
    root += 1.6 / dim**0.5 * torch.randn(dim, dim, generator=noise, dtype=torch.float64).tril(-1)
    mean = torch.randn(dim, generator=noise, dtype=torch.float64)
    flow = ebflow.Flow((dim,), [Dense(root, -root @ mean)]).double()
    return flow, mean, torch.linalg.inv(root.mT @ root)


def conditional(mean, covariance, row):
    """Returns the mean and the covariance of a row's missing elements."""
    m, o = row.isnan(), ~row.isnan()
    gain = covariance[m][:, o] @ torch.linalg.inv(covariance[o][:, o])
    given = covariance[m][:, m] - gain @ covariance[o][:, m]
    return mean[m] + gain @ (row[o] - mean[o]), given


@pytest.mark.parametrize("row", [[0.3, NAN, -1.2, NAN], [NAN] * 4, [0.5, NAN, NAN, -1.0] * 3])
def test_a_gaussians_conditional_mean_and_covariance(row, way):
    flow, mean, covariance = gaussian(len(row))
    row = torch.tensor([row], dtype=torch.float64)
    found = impute(flow, row, generator=generator(1), samples=SAMPLES)
    samples = found.samples[0][:, row[0].isnan()]
    expected, given = conditional(mean, covariance, row[0])
    errors = (samples.mean(0) - expected) / (given.diagonal() / SAMPLES).sqrt()
    assert errors.abs().max() < BOUND
    spread = torch.outer(given.diagonal(), given.diagonal()) + given**2
    errors = (samples.T.cov().reshape(given.shape) - given) / (spread / SAMPLES).sqrt()
    assert errors.abs().max() < BOUND
    assert len(samples.unique(dim=0)) > 0.9 * SAMPLES and found.effective[0] > 0.5


def shifted(flow):
    """Returns the same Gaussian with a mean that depends on a context of two, and the slope."""
    shift = ConditionalAffine((4,), 2)
    line = 3 * torch.randn(4, 2, generator=generator(7))
    shift.line.weight.data[4:] = line
    given = ebflow.Flow((4,), [*flow.layers, shift], context=2).double()
    root = flow.layers[0].weight.detach()
    return given, -torch.linalg.solve(root, line.double())


@pytest.mark.parametrize("conditional_flow", [False, True])
def test_rows_have_their_own_patterns(conditional_flow, way):
    flow, mean, covariance = gaussian()
    context, means = None, mean.expand(3, 4)
    if conditional_flow:
        flow, slope = shifted(flow)
        context = torch.tensor([[1.0, -2.0], [0.0, 0.0], [-1.5, 0.5]]).double()
        means = mean + context @ slope.mT
    rows = torch.tensor(
        [[0.3, NAN, -1.2, NAN], [0.0, 1.0, 2.0, 3.0], [NAN, -1.0, 0.4, 1.0]], dtype=torch.float64
    )
    found = impute(flow, rows, context=context, generator=generator(2), samples=400)
    observed = ~rows.isnan()
    for row, samples, seen in zip(rows, found.samples, observed, strict=True):
        assert (samples[:, seen] == row[seen]).all() and samples.isfinite().all()
    for k in (0, 2):
        expected, given = conditional(means[k], covariance, rows[k])
        errors = found.samples[k][:, ~observed[k]].mean(0) - expected
        assert (errors / (given.diagonal() / 400).sqrt()).abs().max() < BOUND
    assert found.effective[1] == 1 and found.effective[[0, 2]].max() < 1


def test_frames_and_arrays_are_imputed_as_tensors_are():
    flow, context = shifted(gaussian()[0])[0], torch.tensor([[1.0, -2.0], [0.0, 0.5]]).double()
    rows = torch.tensor([[0.3, NAN, -1.2, NAN], [NAN, 1.0, 2.0, 3.0]], dtype=torch.float64)
    columns, given = ([Column(n, "number", "float64") for n in names] for names in ("abcd", "uv"))
    flow.columns = Columns(columns, "pandas", Columns(given, "pandas"))
    frame = pd.DataFrame(np.concatenate([context, rows], 1), columns=[*"uvabcd"])
    expected = impute(flow, rows, context=context, generator=generator(2), samples=3)
    for x, c in ((rows.numpy(), context.numpy()), (frame, None)):
        found = impute(flow, x, context=c, generator=generator(2), samples=3)
        assert torch.equal(found.samples, expected.samples)


def test_modes_have_their_weights(way):
    """Two modes 14 standard deviations apart, whose weights depend on the observed element."""
    weights, means = torch.tensor([0.9, 0.1]), torch.tensor([[-4.0, 0.0], [10.0, 1.0]])
    base = ebflow.GaussianMixture(weights.double(), means.double(), torch.ones(2).double())
    flow = ebflow.Flow((2,), [], base=base).double()
    row = torch.tensor([[NAN, 0.8]], dtype=torch.float64)
    found = impute(flow, row, generator=generator(3), samples=SAMPLES)
    odds = weights * Normal(means[:, 1], 1.0).log_prob(torch.tensor(0.8)).exp()
    share = float(odds[1] / odds.sum())
    right = (found.samples[0, :, 0] > 0).double().mean()
    assert abs(right - share) < BOUND * math.sqrt(share * (1 - share) / SAMPLES)


def grid():
    """Returns a flow of a whole number and a real; with noise on [0, 1) they are a Gaussian."""
    root = torch.linalg.cholesky(torch.tensor([[2.0, 1.2], [1.2, 1.0]], dtype=torch.float64))
    layers = [
        Cells([ColumnCells(0.0, 1.0), ColumnCells()]),
        Dense(torch.linalg.inv(root), torch.zeros(2, dtype=torch.float64)),
    ]
    return ebflow.Flow((2,), layers, n_preprocessing=1).double()


def test_missing_values_of_a_grid_have_the_masses_of_its_cells(way):
    row = torch.tensor([[NAN, 0.5]], dtype=torch.float64)
    whole = impute(grid(), row, generator=generator(4), samples=SAMPLES).samples[0, :, 0]
    assert (whole == whole.round()).all()
    normal = Normal(1.2 * 0.5, math.sqrt(2 - 1.2**2))
    for k in (-1.0, 0.0, 1.0):
        mass = float(normal.cdf(torch.tensor(k + 1)) - normal.cdf(torch.tensor(k)))
        share = (whole == k).double().mean()
        assert abs(share - mass) < BOUND * math.sqrt(mass * (1 - mass) / SAMPLES)


def test_an_observed_value_of_a_grid_is_a_cell(way):
    """The mean given a cell, by quadrature; that given its middle is 5 standard errors away."""
    row = torch.tensor([[5.0, NAN]], dtype=torch.float64)
    found = impute(grid(), row, generator=generator(5), samples=SAMPLES)
    at = torch.linspace(5, 6, 1001, dtype=torch.float64)
    mass = Normal(0.0, math.sqrt(2)).log_prob(at).exp()
    mean = float((mass * 0.6 * at).sum() / mass.sum())
    samples = found.samples[0, :, 1]
    error = float(samples.std()) / math.sqrt(SAMPLES)
    assert abs(samples.mean() - mean) < BOUND * error < 5 * error < abs(0.6 * 5.5 - mean)


def positive():
    """Returns N(0, I) of two columns, whose first one is bounded to [0, ∞)."""
    flow = ebflow.Flow((2,), [Cells([ColumnCells(), ColumnCells()])], n_preprocessing=1).double()
    infinite = torch.full((2,), math.inf).double()
    flow.layers[0].bound(torch.tensor([0.0, -math.inf]).double(), infinite)
    return flow


def test_missing_values_stay_within_known_bounds(way):
    """A column on [0, ∞) whose density, N(0, 1), has half of its mass outside."""
    flow = positive()
    row = torch.tensor([[NAN, 0.0]], dtype=torch.float64)
    found = impute(flow, row, generator=generator(8), samples=SAMPLES).samples[0, :, 0]
    assert found.min() > 0
    deviation = math.sqrt((1 - 2 / math.pi) / SAMPLES)
    assert abs(found.mean() - math.sqrt(2 / math.pi)) < BOUND * deviation


def test_missing_levels_have_their_probabilities(way):
    """A category between two others, one of which it depends on and one depends on it."""
    flow = stirred(of_categories((0, 3, 4, 5)), 0.1).eval().requires_grad_(False)
    row = torch.tensor([[0.3, 1.0, NAN, 4.0]], dtype=torch.float64)
    rows = row.repeat(4, 1)
    rows[:, 2] = torch.arange(4.0)
    p = flow.log_prob(rows).softmax(0)
    found = impute(flow, row, generator=generator(9), samples=SAMPLES).samples[0, :, 2]
    shares = torch.stack([(found == level).double().mean() for level in range(4)])
    assert shares.sum() == 1
    assert ((shares - p).abs() < BOUND * (p * (1 - p) / SAMPLES).sqrt()).all()


def test_sweeps_correct_poor_proposals(monkeypatch):
    """Of a Gaussian whose proposals are five times as wide."""
    flow, mean, covariance = gaussian(6)
    plain = imputation.Proposals

    class Wide(plain):
        def _given(self, z):
            given = super()._given(z)
            given.root, given.inverse = given.root / 5, 5 * given.inverse
            return given

    monkeypatch.setattr(imputation, "Proposals", Wide)
    row = torch.tensor([[0.5, NAN, -0.2, NAN, NAN, NAN]], dtype=torch.float64)
    found = impute(flow, row.repeat(400, 1), generator=generator(6), samples=1, sweeps=20)
    assert found.effective.max() < 0.1
    samples = found.samples[:, 0, row[0].isnan()]
    expected, given = conditional(mean, covariance, row[0])
    errors = (samples.mean(0) - expected) / (given.diagonal() / 400).sqrt()
    assert errors.abs().max() < BOUND
    torch.testing.assert_close(samples.std(0), given.diagonal().sqrt(), rtol=0.2, atol=0)


def test_the_seed_decides(way):
    flow, row = gaussian()[0], torch.tensor([[0.3, NAN, -1.2, NAN]], dtype=torch.float64)
    one, two, other = (
        impute(flow, row, generator=generator(seed), samples=3).samples for seed in (0, 0, 1)
    )
    assert one.equal(two) and not one.equal(other)


def test_a_trained_flow_of_float32_rows(x_dim=5):
    truth = MultivariateNormal(torch.zeros(x_dim), 0.7 + 0.3 * torch.eye(x_dim))
    torch.manual_seed(0)
    x = truth.sample((400,)).float()
    flow = ebflow.fit(x, steps=40, options={"depth": 1}, marginals=False, progress=False)
    incomplete = x[:20].clone()
    incomplete[:, 1:3] = NAN
    found = impute(flow, incomplete, generator=generator(0), samples=4)
    assert found.samples.dtype == torch.float32 and found.samples.isfinite().all()
    errors = found.samples.mean(1)[:, 1:3] - x[:20, 1:3]
    assert errors.square().mean().sqrt() < 0.9 * x[:20, 1:3].std()


@pytest.mark.parametrize(("row", "options", "line"), [
    ([0.0] * 4, {"samples": 0}, "samples, sweeps: found"),
    ([0.0] * 4, {"sweeps": -1}, "samples, sweeps: found"),
    ([0.0] * 3, {}, r"x: found shape \(1, 3\)"),
    ([NAN, math.inf, 0.0, 0.0], {}, "x, feature 1, row 0: found inf, expected a finite"),
])  # fmt: skip
def test_what_cannot_be_imputed_is_told(row, options, line):
    with pytest.raises(ValueError, match=line):
        gaussian()[0].impute(torch.tensor([row]).double(), **options)


def test_rows_without_a_density():
    row, other = torch.tensor([[1e200, NAN, 1e200, 1e200], [0.0, NAN, 0.0, 0.0]]).double()
    with pytest.raises(NonFinite, match="1 of 1 incomplete rows have no finite density"):
        impute(gaussian()[0], row[None], generator=generator(0)).check()
    found = impute(gaussian()[0], torch.stack([row, other]), generator=generator(0))
    with pytest.warns(RuntimeWarning, match="1 of 2 incomplete rows have no finite density"):
        found.check()
    assert found.effective[0] == 0 < found.effective[1]


def test_rows_outside_known_bounds():
    flow = positive()
    rows = torch.tensor([[-1.0, NAN], [1.0, NAN]]).double()
    found = impute(flow, rows, generator=generator(0))
    assert found.effective[0] == 0 < found.effective[1] and found.samples.isfinite().all()
    assert (found.samples[..., 0] == rows[:, :1]).all()


def test_complete_rows_stay():
    flow, mean, _ = gaussian()
    found = impute(flow, mean[None], generator=generator(0), samples=2)
    assert torch.equal(found.samples, mean.expand(1, 2, 4)) and found.effective.tolist() == [1]
