"""Exact likelihood of a split; the statistics of latents, and what they are read as."""

import math

import numpy as np
import pytest
import torch

from ebflow.architectures import dense
from ebflow.bases import GaussianMixture
from ebflow.density import EnergyFunction
from ebflow.errors import NonFinite
from ebflow.estimates import Estimate
from ebflow.evaluation import (
    Likelihood,
    Validation,
    crps,
    diagnose,
    evaluate,
    fisher_divergence,
    kl_divergence,
    latent_statistics,
    log_probs,
)
from ebflow.preprocessing import fit
from ebflow.randomness import ContentGenerator
from ebflow.randomness import generator as derive
from ebflow.tables.rows import Rows
from ebflow.toy import checkerboard, smoothed_sine

from . import reference
from .bijections.cases import seeded
from .flows import FLOWS, at, contexts
from .training import flow_of


def flow_for(dataset, **options):
    split = dataset.split("train")
    net = dense((split.width,), noise=0.2, generator=seeded())
    return net.preprocessed(fit(split, **options))


def direct(flow, split, seed=0, draw=0):
    """Returns the log-densities of a split by one call."""
    with torch.no_grad():
        return flow.log_prob(split.tensor(), generator=ContentGenerator(seed, draw))


@pytest.mark.parametrize("source", ["digits", "diabetes"])
@pytest.mark.parametrize("batch_size", [1, 33, 1000])
def test_likelihood_is_the_direct_one(request, source, batch_size):
    dataset = request.getfixturevalue(source)
    flow, split = flow_for(dataset), dataset.split("test")
    logs = direct(flow, split).numpy()
    found = evaluate(flow, split, batch_size=batch_size)
    assert found.nll == pytest.approx(-logs.mean(), abs=1e-10)
    assert found.nll_se == pytest.approx(logs.std(ddof=1) / math.sqrt(len(logs)), abs=1e-10)
    assert found.bpd == pytest.approx(-logs.mean() / (split.width * math.log(2)), abs=1e-10)
    assert found.count == len(split)


def test_one_draw_is_log_prob_without_a_generator(digits):
    flow, split = flow_for(digits), digits.split("test")
    expected = -float(flow.log_prob(split.tensor()).detach().mean())
    assert evaluate(flow, split).nll == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_scores_of_integers_do_not_depend_on_order_and_batch(digits, kind):
    """Of images of integers, and of tables with a coin, counts and a real column."""
    flow, x = flow_for(digits), digits.split("test").tensor().to(kind)
    if kind == torch.float32:
        real = torch.randn(250, generator=seeded())
        x = torch.stack([(real > 0).float(), torch.arange(250.0) % 7, real], 1)
        chain = fit(Rows(x), grids=True, tails=True)
        flow = dense((3,), noise=0.2, generator=seeded()).preprocessed(chain)
    scores, order = log_probs(flow, x, seed=1, draws=2), torch.randperm(250, generator=seeded())
    torch.testing.assert_close(log_probs(flow, x[order], seed=1, draws=2), scores[order])
    torch.testing.assert_close(log_probs(flow, x[7:8], seed=1, draws=2), scores[7:8])
    torch.testing.assert_close(log_probs(flow, x.double(), seed=1, draws=2), scores)
    single = log_probs(flow.float(), x, seed=1, draws=2)
    torch.testing.assert_close(single, scores, atol=0.01, rtol=1e-3)


def test_draws_are_averaged(digits):
    flow, split = flow_for(digits), digits.split("test")
    logs = torch.stack([direct(flow, split, seed=3, draw=d) for d in range(4)])
    found = evaluate(flow, split, draws=4, seed=3)
    assert found.nll == pytest.approx(-float(logs.mean()), abs=1e-10)
    per_row = logs.mean(0).numpy()
    assert found.nll_se == pytest.approx(per_row.std(ddof=1) / math.sqrt(250), abs=1e-10)


def test_importance_weighting_tightens_the_bound(digits):
    flow, split = flow_for(digits), digits.split("test")
    logs = torch.stack([direct(flow, split, draw=d) for d in range(5)])
    exact = -float(torch.log(torch.exp(logs).mean(0)).mean())
    plain = evaluate(flow, split, draws=5)
    weighted = evaluate(flow, split, draws=5, importance_weighted=True)
    assert weighted.nll == pytest.approx(exact, abs=1e-9)
    assert weighted.nll < plain.nll
    one = evaluate(flow, split, draws=1, importance_weighted=True)
    assert one.nll == pytest.approx(evaluate(flow, split).nll, abs=1e-12)


@pytest.mark.parametrize("source", ["digits", "diabetes"])
def test_likelihood_does_not_depend_on_where_the_cut_is(request, source):
    dataset = request.getfixturevalue(source)
    split = dataset.split("train")
    chain, net = fit(split), dense((split.width,), noise=0.2, generator=seeded())
    one, other = (
        evaluate(net.preprocessed(chain, match_after=after), dataset.split("test")).nll
        for after in (True, False)
    )
    assert one == pytest.approx(other, abs=1e-10)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_densities_that_are_not_finite_raise(value):
    logs = torch.zeros(10)
    logs[7] = value
    with pytest.raises(NonFinite, match="at example 7"):
        Likelihood.of(logs, 3)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_flow_that_is_not_finite_raises(digits, layer):
    flow = flow_for(digits)
    with torch.no_grad():
        flow.core.layers[layer].weight[0, 0] = torch.nan
    with pytest.raises(NonFinite):
        evaluate(flow, digits.split("test"))


def test_a_singular_flow_raises(digits):
    flow = flow_for(digits)
    with torch.no_grad():
        flow.core.layers[0].weight.zero_()
    with pytest.raises(NonFinite):
        evaluate(flow, digits.split("test"))


def test_summary_of_densities():
    logs = torch.tensor([-1.0, -3.0])
    found = Likelihood.of(logs, 2)
    assert found == Likelihood(2.0, 1.0, 1 / math.log(2), 2)
    assert np.isnan(Likelihood.of(logs[:1], 2).nll_se)


def test_it_is_in_evaluation_mode_and_leaves_every_mode_as_it_was(digits):
    """Power iterations belong to training: a likelihood told twice is the same, and moves none."""
    flow = flow_of(64, "convolutional", spectral_norm=True).train()
    flow.layers[1].eval()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=seeded()))
    modes = [module.training for module in flow.modules()]
    before = {k: t.clone() for k, t in flow.state_dict().items()}
    seen, plain = [], type(flow.layers[1]).forward
    split = Rows(torch.randn(30, 64, generator=seeded(2)))
    flow.layers[1].forward = lambda x: seen.append(flow.training) or plain(flow.layers[1], x)
    first = evaluate(flow, split)
    assert evaluate(flow, split) == first and seen and not any(seen)
    assert [module.training for module in flow.modules()] == modes
    assert all(torch.equal(t, before[k]) for k, t in flow.state_dict().items())
    with pytest.raises(ValueError):
        evaluate(flow, Rows(torch.zeros(3, 63)))
    assert flow.training


def test_contexts_are_those_of_the_rows():
    flow = FLOWS["dense, given"]()
    x, c = at(flow, 30), contexts(flow, 30)
    found = evaluate(flow, Rows(x, context=c), batch_size=7)
    exact = -flow.log_prob(x, context=c).detach()
    assert found.nll == pytest.approx(float(exact.mean()), abs=1e-10)


# Divergences


N = 20_000
BOUND = reference.two_sided(1e-4)
"""A z-score that a right estimate exceeds once in 10,000 times."""


def gaussian(seed, D=3):
    root = torch.eye(D) + 0.3 * torch.randn(D, D, generator=seeded(seed))
    mean = torch.randn(1, D, generator=seeded(seed + 10))
    return GaussianMixture(torch.ones(1), mean, (root @ root.mT)[None])


@pytest.fixture
def pair():
    """Two Gaussians, and samples of the first."""
    p, q = gaussian(0), gaussian(1)
    return p, q, p.sample(N, generator=derive(0))


def moments(p):
    return p.means[0], p.covariances[0], torch.linalg.inv(p.covariances[0])


def close(found, exact):
    return abs(found.value - float(exact)) < BOUND * found.se and found.count == N


def test_kl_of_gaussians(pair):
    p, q, x = pair
    (a, A, _), (b, B, Q) = moments(p), moments(q)
    log_dets = torch.logdet(B) - torch.logdet(A)
    exact = 0.5 * ((Q @ A).trace() + (b - a) @ Q @ (b - a) - 3 + log_dets)
    assert close(kl_divergence(p, q, x), exact)


def test_fisher_divergence_of_gaussians(pair):
    p, q, x = pair
    (a, A, P), (b, _, Q) = moments(p), moments(q)
    exact = 0.5 * (((Q - P) @ A @ (Q - P)).trace() + (Q @ (a - b)).square().sum())
    assert close(fisher_divergence(p, q, x), exact)


def test_a_density_does_not_diverge_from_itself(pair):
    p, _, x = pair
    assert fisher_divergence(p, p, x) == Estimate(0.0, 0.0, N)
    assert fisher_divergence(p, EnergyFunction(p.energy), x).value < 1e-20


def test_of_a_flow(pair):
    """A flow of one layer is a Gaussian: u = W x + b."""
    p, _, x = pair
    flow = dense((3,), depth=1, noise=0.5, bias=0.3, generator=seeded())
    with torch.no_grad():
        u = flow.to_latent(torch.cat([torch.zeros(1, 3), torch.eye(3)]))
    W, b = (u[1:] - u[0]).mT, u[0]
    covariance = torch.linalg.inv(W.mT @ W)
    q = GaussianMixture(torch.ones(1), -torch.linalg.solve(W, b)[None], covariance[None])
    for divergence in (kl_divergence, fisher_divergence):
        found, expected = divergence(p, flow, x), divergence(p, q, x)
        assert found.value == pytest.approx(expected.value, rel=1e-9)
        assert found.se == pytest.approx(expected.se, rel=1e-9)


@pytest.mark.parametrize("divergence", [kl_divergence, fisher_divergence])
def test_batches_do_not_matter(pair, divergence):
    p, q, x = pair
    one, other = (divergence(p, q, x[:100], batch_size=size) for size in (100, 7))
    assert one.value == pytest.approx(other.value, rel=1e-12)
    assert one.se == pytest.approx(other.se, rel=1e-12)


def checkerboard_log_prob(x):
    """Returns the exact log-density: −log 72 on the squares, −∞ beside them."""
    i, j = (x / 3).floor().unbind(1)
    inside = (i >= -2) & (i < 2) & (j >= -2) & (j < 2) & ((i + j) % 2 == 0)
    return torch.where(inside, -math.log(72), -math.inf)


class Checkerboard:
    log_prob = staticmethod(checkerboard_log_prob)


def test_a_model_that_vanishes_on_data_raises(pair):
    x = checkerboard(10, generator=derive(0))
    x[4] = torch.tensor([0.5, 4.0])
    with pytest.raises(NonFinite, match="log p − log q: found inf at example 4"):
        kl_divergence(smoothed_sine(0.375), Checkerboard(), x)


def test_estimate():
    found = Estimate.of(torch.tensor([1.0, 3.0]), name="x")
    assert found == Estimate(2.0, 1.0, 2)
    assert math.isnan(Estimate.of(torch.ones(1), name="x").se)
    with pytest.raises(NonFinite, match="x: found nan at example 1"):
        Estimate.of(torch.tensor([0.0, math.nan]), name="x")


BLIND = {"latent/mean_norm2": 100.0, "latent/var_min": 1e-3}


def latents(batch=5000, size=10):
    return torch.randn(batch, size, generator=seeded())


def test_standard_latents():
    """Five standard errors: √(2 D)/B for the mean, √(2/B) for a variance."""
    found = latent_statistics(latents())
    assert abs(found["latent/mean_norm2"]) < 5 * math.sqrt(20) / 5000
    assert 1 - 0.1 < found["latent/var_min"] <= found["latent/var_max"] < 1 + 0.1


def test_squared_mean_is_unbiased():
    """Over 400 batches of 20 rows, a z-test at a false-alarm rate of 1e-4."""
    u = torch.randn(400, 20, 6, generator=seeded()) + 0.3
    found = np.array([latent_statistics(batch)["latent/mean_norm2"] for batch in u])
    assert abs(found.mean() - 6 * 0.09) < 3.9 * found.std() / 20


def test_a_direction_without_variance_is_seen_along_the_mean():
    u = latents()
    u[:, 3] = 10 + 0.01 * u[:, 3]
    found = latent_statistics(u)
    assert found["latent/mean_norm2"] == pytest.approx(100, rel=0.01)
    assert found["latent/var_min"] < 0.01


def test_variances_are_numpys():
    u = latents(50, 4) * 3 + 1
    mean = u.mean(0) / u.mean(0).norm()
    found = latent_statistics(u, probes=1)
    along = np.var((u @ mean).numpy(), ddof=1)
    values = found["latent/var_min"], found["latent/var_max"]
    assert min(abs(v - along) for v in values) < 1e-10


def test_images_are_flattened():
    u = latents(50, 6)
    assert latent_statistics(u.view(50, 1, 2, 3)) == latent_statistics(u)


def test_statistics_of_one_row_are_numbers():
    assert all(math.isfinite(v) for v in latent_statistics(latents(1)).values())


BEST = Validation(120.0, 119.0, -30.0)
NOW = {
    "blind": Validation(180.0, 179.0, -40.0),
    "over-fitting": Validation(180.0, 90.0, -40.0),
    "over-fitting by another loss": Validation(180.0, 90.0, -20.0),
    "converged": Validation(120.1, 119.1, -30.0),
}


@pytest.mark.parametrize("name", NOW)
def test_diagnoses(name):
    diagnosis = diagnose(NOW[name], BEST, BLIND)
    words = ("blind", "over-fitting", "converged")
    assert [word for word in words if word in diagnosis] == [name.split(" by ")[0]]
    assert ("anchor" in diagnosis) == (name == "blind")
    assert f"{NOW[name].nll:.1f}" in diagnosis and "120.0" in diagnosis and "\n" not in diagnosis


def test_crps_is_that_of_its_definition():
    draws = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.zeros(3, 2, dtype=torch.float64)
    apart = (draws.unsqueeze(2) - draws.unsqueeze(1)).abs().sum((1, 2)) / (5 * 4)
    torch.testing.assert_close(crps(draws, y), draws.abs().mean(1) - apart / 2)


def test_crps_of_one_draw_is_refused():
    with pytest.raises(ValueError, match="draws: found 1 of each row, expected at least 2"):
        crps(torch.zeros(4, 1, 3), torch.zeros(4, 3))


@pytest.mark.filterwarnings("error")
def test_statistics_of_latents_keep_no_graph():
    assert latent_statistics(torch.randn(50, 6, requires_grad=True) * 1.0)


def test_crps_of_a_normal_law():
    """E of (2 φ(0) − 1/√π) for y at the mean, within 4.5 errors of 2,000 rows of 4 draws."""
    noise = torch.Generator().manual_seed(1)
    draws = torch.randn(2_000, 4, 1, generator=noise, dtype=torch.float64)
    found = crps(draws, torch.zeros(2_000, 1, dtype=torch.float64))
    expected = 2 / math.sqrt(2 * math.pi) - 1 / math.sqrt(math.pi)
    assert abs(float(found.mean()) - expected) < 4.5 * float(found.std()) / math.sqrt(2_000)
