"""Exact likelihood of a split."""

import math

import numpy as np
import pytest
import torch

from ebflow.architectures import dense
from ebflow.errors import NonFinite
from ebflow.evaluation import Likelihood, evaluate
from ebflow.preprocessing import fit
from ebflow.randomness import generator as derive

from .bijections.cases import seeded


def flow_for(dataset, **front):
    split = dataset.split("train")
    net = dense((split.width,), noise=0.2, generator=seeded())
    return net.preprocessed(fit(split, **front))


def direct(flow, split, seed=0, draw=0):
    """Returns the log-densities of a split by one call."""
    with torch.no_grad():
        return flow.log_prob(split.tensor(), derive(seed, "dequantise", draw))


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
        flow.matched.layers[layer].weight[0, 0] = torch.nan
    with pytest.raises(NonFinite):
        evaluate(flow, digits.split("test"))


def test_a_singular_flow_raises(digits):
    flow = flow_for(digits)
    with torch.no_grad():
        flow.matched.layers[0].weight.zero_()
    with pytest.raises(NonFinite):
        evaluate(flow, digits.split("test"))


def test_summary_of_densities():
    logs = torch.tensor([-1.0, -3.0])
    found = Likelihood.of(logs, 2)
    assert found == Likelihood(2.0, 1.0, 1 / math.log(2), 2)
    assert np.isnan(Likelihood.of(logs[:1], 2).nll_se)
