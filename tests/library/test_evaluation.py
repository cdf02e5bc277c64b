"""Exact likelihood of a split; the statistics of latents, and what they are read as."""

import math

import numpy as np
import pytest
import torch

from ebflow.architectures import dense
from ebflow.bijections.base import products
from ebflow.errors import NonFinite
from ebflow.evaluation import (
    Estimate,
    Likelihood,
    Validation,
    diagnose,
    evaluate,
    latent_statistics,
    log_probs,
)
from ebflow.preprocessing import fit
from ebflow.randomness import ContentGenerator
from ebflow.tables.rows import Rows

from .bijections.cases import seeded
from .flows import FLOWS, at, contexts
from .training import flow_of


def test_likelihoods_on_gpus_are_not_rounded_to_tf32(monkeypatch):
    """PyTorch rounds convolutions, unless it is asked not to."""

    def energy(flow, x, **options):
        return x.new_full((len(x),), float(torch.backends.cudnn.allow_tf32))

    monkeypatch.setattr("ebflow.flow.Flow.energy", energy)
    with products("high"):
        assert log_probs(dense((3,)), torch.zeros(2, 3)).tolist() == [0, 0]


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
    scores, order = log_probs(flow, x, seed=1, samples=2), torch.randperm(250, generator=seeded())
    torch.testing.assert_close(log_probs(flow, x[order], seed=1, samples=2), scores[order])
    torch.testing.assert_close(log_probs(flow, x[7:8], seed=1, samples=2), scores[7:8])
    torch.testing.assert_close(log_probs(flow, x.double(), seed=1, samples=2), scores)
    single = log_probs(flow.float(), x, seed=1, samples=2)
    torch.testing.assert_close(single, scores, atol=0.01, rtol=1e-3)


def test_draws_are_averaged(digits):
    flow, split = flow_for(digits), digits.split("test")
    logs = torch.stack([direct(flow, split, seed=3, draw=d) for d in range(4)])
    found = evaluate(flow, split, samples=4, seed=3)
    assert found.nll == pytest.approx(-float(logs.mean()), abs=1e-10)
    per_row = logs.mean(0).numpy()
    assert found.nll_se == pytest.approx(per_row.std(ddof=1) / math.sqrt(250), abs=1e-10)


def test_importance_weighting_tightens_the_bound(digits):
    flow, split = flow_for(digits), digits.split("test")
    logs = torch.stack([direct(flow, split, draw=d) for d in range(5)])
    exact = -float(torch.log(torch.exp(logs).mean(0)).mean())
    plain = evaluate(flow, split, samples=5)
    weighted = evaluate(flow, split, samples=5, importance_weighted=True)
    assert weighted.nll == pytest.approx(exact, abs=1e-9)
    assert weighted.nll < plain.nll
    one = evaluate(flow, split, samples=1, importance_weighted=True)
    assert one.nll == pytest.approx(evaluate(flow, split).nll, abs=1e-12)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_densities_that_are_not_finite_raise(value):
    logs = torch.zeros(10)
    logs[7] = value
    with pytest.raises(NonFinite, match="at example 7"):
        Likelihood.of(logs, 3)


@pytest.mark.parametrize(
    "layer, place, value", [(0, (0, 0), torch.nan), (2, (0, 0), torch.nan), (0, ..., 0.0)]
)
def test_a_flow_that_is_singular_or_not_finite_raises(digits, layer, place, value):
    flow = flow_for(digits)
    with torch.no_grad():
        flow.core.layers[layer].weight[place] = value
    with pytest.raises(NonFinite):
        evaluate(flow, digits.split("test"))


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
    u = latents(50, 1) * 3 + 1
    found, expected = latent_statistics(u), np.var(u.numpy(), ddof=1)
    assert found["latent/var_min"] == pytest.approx(expected) == found["latent/var_max"]


@pytest.mark.filterwarnings("error")
def test_latents_of_images_of_one_row_and_with_gradients_have_statistics():
    u = latents(50, 6)
    assert latent_statistics(u.view(50, 1, 2, 3)) == latent_statistics(u)
    assert all(math.isfinite(v) for v in latent_statistics(latents(1)).values())
    assert latent_statistics(u.requires_grad_() * 1.0)  # keep no graph


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


def test_a_likelihood_is_not_taken_for_score_matching():
    assert "Score matching" not in diagnose(NOW["blind"], BEST, BLIND, matching=False)
