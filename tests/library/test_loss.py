"""The training loss: its terms, and that they share the objective's forward sweep."""

from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ebflow import objectives
from ebflow.anchor import Anchor
from ebflow.loss import Loss
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from ebflow.schedules import geometric

from .bijections.cases import seeded
from .test_flow import net
from .training import loss_of

CLOSE = dict(rtol=1e-12, atol=1e-12)
SIGMA = 0.3
MATCHING = ["dsm", "ssm", "ssm_vr", "fd_ssm", "exact_sm", "taylor_sm"]


def setting(batch=5):
    flow = net((4,), bias=0.3)
    return flow, torch.randn(batch, 4, generator=seeded(2))


def seen(objective, x):
    """The points at which an objective sees the energy."""
    return x + SIGMA * normal(x.shape, x, derive(0)) if objective == "dsm" else x


@pytest.mark.parametrize("objective", [*MATCHING, "sml", "ml", "relative_ml"])
def test_alone_it_is_the_objective(objective):
    flow, x = setting()
    found = loss_of(flow, objective)(x, derive(0))
    plain = objectives.OBJECTIVES[objective](flow, x, generator=derive(0))
    torch.testing.assert_close(found, plain, **CLOSE)


@pytest.mark.parametrize("objective", [*MATCHING, "sml", "ml"])
def test_terms_add_up(objective):
    flow, x = setting()
    anchor = Anchor(flow)
    anchor.step()
    function = objectives.OBJECTIVES[objective]
    found = Loss(
        flow, function, weight=0.7, anchor=anchor, anchor_weight=1.3, low_energy=0.2,
        latent_mean=0.9,
    )(x, derive(0))  # fmt: skip
    y = seen(objective, x)
    energy = flow.energy(y)
    expected = (
        0.7 * function(flow, x, generator=derive(0))
        + 1.3 * (energy + flow.log_normalizer())
        + 0.2 * energy
        + 0.45 * flow(y).mean(0).square().sum()
    )
    torch.testing.assert_close(found, expected, **CLOSE)
    a, b = (torch.autograd.grad(t.mean(), list(flow.parameters())) for t in (found, expected))
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_clean_anchor_is_taken_at_the_data():
    flow, x = setting()
    anchor = Anchor(flow)
    anchor.step()
    found = Loss(flow, objectives.dsm, anchor=anchor, anchor_weight=1.0, anchor_clean=True)
    expected = objectives.dsm(flow, x, generator=derive(0)) - flow.log_prob(x)
    torch.testing.assert_close(found(x, derive(0)), expected, **CLOSE)


def test_without_objective_it_is_lazy_likelihood():
    flow, x = setting()
    anchor = Anchor(flow)
    anchor.step()

    def never(density, x, *, generator):
        raise AssertionError("an objective of weight 0 was computed")

    found = Loss(flow, never, weight=0.0, anchor=anchor, anchor_weight=1.0)(x, derive(0))
    torch.testing.assert_close(found, -flow.log_prob(x), **CLOSE)


def test_finishing_is_exact_likelihood_and_nothing_else():
    flow, x = setting()
    anchor = Anchor(flow)
    loss = Loss(flow, objectives.dsm, anchor=anchor, anchor_weight=1.0, low_energy=5.0)
    loss.finishing = True
    torch.testing.assert_close(loss(x, derive(0)), -flow.log_prob(x), **CLOSE)


@pytest.mark.parametrize("finishing", [False, True])
def test_latents_are_those_of_the_last_batch(finishing):
    flow, x = setting()
    loss = loss_of(flow, "ssm")
    loss(x, derive(0))
    loss.finishing = finishing
    loss(x + 1, derive(0))
    assert torch.allclose(loss.latent, flow(x + 1))
    assert not loss.latent.requires_grad


def test_scores_are_matched_in_every_nth_step_and_the_anchor_in_all():
    flow, x = net((4,)), torch.randn(6, 4, generator=derive(0))
    anchor = Anchor(flow)
    anchor.step()
    both = Loss(flow, objectives.dsm, every=3, anchor=anchor, anchor_weight=1.0)
    full = Loss(flow, objectives.dsm, anchor=anchor, anchor_weight=1.0)
    alone = Loss(flow, objectives.dsm, weight=0.0, anchor=anchor, anchor_weight=1.0)
    for step in range(7):
        both.step = step
        expected = (alone if step % 3 else full)(x, derive(1))
        assert torch.equal(both(x, derive(1)), expected)


def test_steps_without_scores_need_an_anchor():
    with pytest.raises(ValueError, match="every: found 2 without an anchor"):
        Loss(net((4,)), objectives.dsm, every=2)


def test_an_anchor_weight_needs_an_anchor():
    with pytest.raises(ValueError, match="without an anchor"):
        Loss(net((4,)), objectives.dsm, anchor_weight=1.0)


def products(loss, x, parameters):
    """Returns the FLOP of the matrix products of one step."""
    if loss.anchor is not None:
        loss.anchor.step()
    with FlopCounterMode(display=False) as counter:
        loss(x, derive(0)).mean().backward(inputs=parameters)
    return counter.get_total_flops()


def calls(loss, x, monkeypatch):
    """Returns the rows of every matrix product of one forward pass."""
    rows, linear = [], torch.nn.functional.linear
    transpose = type(loss.flow.layers[0]).transpose
    with monkeypatch.context() as patch:
        patch.setattr(
            torch.nn.functional, "linear", lambda *a: rows.append(a[0].shape) or linear(*a)
        )
        patch.setattr(
            type(loss.flow.layers[0]),
            "transpose",
            lambda self, s: rows.append(s.shape) or transpose(self, s),
        )
        loss(x, derive(0))
    return rows


TERMS = {
    "anchor": dict(anchor={}),
    "low energy": dict(low_energy=0.1),
    "latent mean": dict(latent_mean=0.1),
    "all": dict(anchor={}, low_energy=0.1, latent_mean=0.1),
}


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("objective", [*MATCHING, "ml"])
def test_terms_cost_no_product_of_matrices(objective, terms, monkeypatch):
    """Forward they add no call; backward at most the input gradient that dropped out of a plain
    score (its last layer's), so FLOP may grow by what the energy's own backward pass needs."""
    flow, x = setting()
    parameters = list(flow.parameters())
    plain = loss_of(flow, objective)
    rich = loss_of(flow, objective, **TERMS[terms])
    if rich.anchor is not None:
        rich.anchor.step()
    assert calls(rich, x, monkeypatch) == calls(plain, x, monkeypatch)
    assert products(rich, x, parameters) == products(plain, x, parameters)


def test_a_clean_anchor_costs_one_likelihood_more():
    flow, x = setting()
    parameters = list(flow.parameters())
    plain, clean = (loss_of(flow, "dsm", **o) for o in ({}, dict(anchor={}, anchor_clean=True)))
    unit = 2 * len(x) * 4 * 4
    found = products(clean, x, parameters) - products(plain, x, parameters)
    assert found == 5 * unit


def test_the_energy_of_pairs_is_that_of_the_first_points():
    flow, x = setting()
    found = loss_of(flow, "dsm", hyper=dict(antithetic=True), low_energy=2.0)(x, derive(0))
    plain = objectives.dsm(flow, x, generator=derive(0), antithetic=True)
    torch.testing.assert_close(found, plain + 2 * flow.energy(seen("dsm", x)), **CLOSE)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_an_annealed_hyperparameter_follows_progress(progress):
    flow, x = setting()
    loss = Loss(flow, objectives.dsm, annealed={"sigma": geometric(1.0, 0.25)})
    loss.progress = progress
    expected = objectives.dsm(flow, x, generator=derive(0), sigma=4**-progress)
    torch.testing.assert_close(loss(x, derive(0)), expected, **CLOSE)
    assert loss.hyperparameters == {"sigma": pytest.approx(4**-progress)}


def test_any_objective_can_be_given():
    flow, x = setting()
    loss = Loss(flow, partial(objectives.dsm, sigma=0.7))
    expected = objectives.dsm(flow, x, generator=derive(0), sigma=0.7)
    torch.testing.assert_close(loss(x, derive(0)), expected, **CLOSE)
