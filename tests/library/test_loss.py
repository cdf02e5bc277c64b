"""The training loss: its terms, the sweep that they share, where each is taken."""

import math
from functools import partial
from inspect import signature

import pytest
import torch

from ebflow import objectives
from ebflow.anchor import Anchor
from ebflow.loss import Loss, LossModule, Progress, balancing_weight, cosine, warmed
from ebflow.randomness import generator as derive

from .bijections.cases import seeded
from .flows import FLOWS, contexts, net
from .training import loss_of

CLOSE = dict(rtol=1e-12, atol=1e-12)
MATCHING = ["dsm", "ssm", "ssm_vr", "fd_ssm", "taylor_sm", "exact_sm"]


def setting(batch=5):
    flow = net((4,), bias=0.3)
    return flow, torch.randn(batch, 4, generator=seeded(2))


def called(loss, flow, x, generator=None, **progress):
    """Returns the losses of a flow without context."""
    return loss(flow(), x, generator or derive(0), Progress(**progress))[0]


def refreshed(flow):
    anchor = Anchor(flow)
    anchor.refresh()
    return anchor


@pytest.mark.parametrize("objective", [*MATCHING, "sml", "ml", "relative_ml"])
def test_alone_it_is_the_objective(objective):
    flow, x = setting()
    plain = objectives.OBJECTIVES[objective](flow, x, generator=derive(0))
    torch.testing.assert_close(called(loss_of(flow, objective), flow, x), plain, **CLOSE)


def test_an_objective_that_evaluates_elsewhere_first_has_its_anchor_at_the_data():
    """The first evaluation need not be at the data."""
    flow, x = setting()

    def before(density, x, *, generator):
        far = density.at(x + 10).energy - density.at(x[:2] - 10).energy.mean()
        return far + density.at(x).energy

    def elsewhere(density, x, *, generator):
        return density.at(x + 10).energy + density.at(x - 10).energy

    anchor = refreshed(flow)
    for objective in (before, elsewhere):
        found = called(Loss(objective, anchor=anchor, anchor_weight=1.0), flow, x)
        expected = objective(flow(), x, generator=None) - flow.log_prob(x)
        torch.testing.assert_close(found, expected, **CLOSE)


def test_without_objective_it_is_lazy_likelihood():
    flow, x = setting()

    def never(density, x, *, generator):
        raise AssertionError("an objective of weight 0 was computed")

    loss = Loss(never, weight=0.0, anchor=refreshed(flow), anchor_weight=1.0)
    torch.testing.assert_close(called(loss, flow, x), -flow.log_prob(x), **CLOSE)


def test_a_module_returns_losses_and_latents():
    flow = FLOWS["dense, given"]()
    c, x = contexts(flow), torch.randn(5, 3, generator=seeded(2))
    module = LossModule(flow, Loss(objectives.ssm))
    losses, latent = module(x, c, derive(0), Progress())
    assert losses.shape == (5,) and not latent.requires_grad
    torch.testing.assert_close(latent, flow(c).to_latent(x), **CLOSE)
    assert {id(p) for p in module.parameters()} == {id(p) for p in flow.parameters()}


def test_objectives_are_brought_to_the_size_of_an_anchor():
    """Denoising by the square of σ; others by a hundredth."""
    for sigma, weight in ((0.5, 0.25), (2, 4.0)):
        assert balancing_weight(partial(objectives.dsm, sigma=sigma)) == weight
    default = signature(objectives.dsm).parameters["sigma"].default
    assert balancing_weight(objectives.dsm) == default**2 != 0.01
    for other in (objectives.ssm, partial(objectives.taylor_sm, step=0.1)):
        assert balancing_weight(other) == 0.01


def test_cosine():
    for t in (0.0, 0.25, 0.5, 1.0):
        assert cosine(t) == pytest.approx((1 + math.cos(math.pi * t)) / 2)
    assert cosine(0) == 1 and cosine(1) == 0 and cosine(1.5) == 0


def test_warmup_rises_linearly_under_the_schedule():
    factor = warmed(cosine, 0.2)
    assert factor(0.1) == pytest.approx(0.5 * cosine(0.1))
    assert factor(0.2) == pytest.approx(cosine(0.2))
    assert factor(0.7) == pytest.approx(cosine(0.7))
