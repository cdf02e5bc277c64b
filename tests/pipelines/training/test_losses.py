"""Further terms of the loss: where each is taken, and what it costs; schedules."""

from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ebflow import objectives
from ebflow.anchor import Anchor
from ebflow.loss import Progress
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.training.losses import StabilizedLoss as Loss
from pipelines.training.losses import epochs, geometric
from tests.library import reference
from tests.library.bijections.cases import seeded
from tests.library.flows import FLOWS, contexts, net
from tests.library.test_loss import CLOSE, MATCHING, called, refreshed, setting

from .cases import loss_of

SIGMA = 0.3


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("objective", [*MATCHING, "sml", "ml"])
def test_terms_add_up(objective, given):
    flow = FLOWS["dense, given"]() if given else setting()[0]
    c = contexts(flow)
    density, x = flow(c), torch.randn(5, *flow.event_shape, generator=seeded(2))
    function, anchor = objectives.OBJECTIVES[objective], refreshed(flow)
    loss = Loss(function, weight=0.7, anchor=anchor, anchor_weight=1.3, low_energy=0.2,
                latent_mean=0.9)  # fmt: skip
    found, evaluation = loss(density, x, derive(0), Progress())
    y = x + SIGMA * normal(x.shape, x, derive(0)) if objective == "dsm" else x  # where it looks
    energy, latent = density.energy(y), density.to_latent(y)
    expected = (
        0.7 * function(density, x, generator=derive(0))
        + 1.3 * (energy + flow.log_normalizer())
        + 0.2 * energy
        + 0.45 * latent.mean(0).square().sum()
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(evaluation.latent[:5], latent, **CLOSE)
    named = [p for p in flow.parameters()]
    pairs = (reference.gradients(t.mean(), named) for t in (found, expected))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.69, 0.7, 1.0])
def test_finishing_is_exact_likelihood_and_nothing_else(share):
    flow, x = setting()
    anchor = Anchor(flow)
    loss = Loss(objectives.dsm, anchor=anchor, anchor_weight=1.0, low_energy=5.0, finish=0.3)
    exact = torch.allclose(called(loss, flow, x, share=share), -flow.log_prob(x), **CLOSE)
    assert exact == (share >= 0.7) and anchor.refreshes == (share < 0.7)


def test_scores_are_matched_in_every_nth_step_and_the_anchor_in_all():
    flow, x = net((4,)), torch.randn(6, 4, generator=derive(0))
    make = partial(Loss, objectives.dsm, anchor=refreshed(flow), anchor_weight=1.0)
    both, full, alone = make(every=3), make(), make(weight=0.0)
    for step in range(7):
        expected = called(alone if step % 3 else full, flow, x, step=step)
        assert torch.equal(called(both, flow, x, step=step), expected)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="without an anchor"):
        Loss(objectives.dsm, anchor_weight=1.0)
    flow, x = setting()
    for shape in ((len(x), 1), ()):
        one = Loss(lambda density, x, *, generator, shape=shape: torch.zeros(shape))
        with pytest.raises(ValueError, match=r"objective: found losses of shape .*, expected one"):
            called(one, flow, x)


def products(loss, flow, x, parameters):
    """Returns the FLOP of the matrix products of one step."""
    with FlopCounterMode(display=False) as counter:
        called(loss, flow, x).mean().backward(inputs=parameters)
    return counter.get_total_flops()


TERMS = {
    "anchor": dict(anchor={}),
    "low energy": dict(low_energy=0.1),
    "latent mean": dict(latent_mean=0.1),
}


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("objective", [*MATCHING, "ml"])
def test_terms_cost_no_product_of_matrices(objective, terms):
    """An anchor's refresh left out: its state is that of this step."""
    flow, x = setting()
    parameters = list(flow.parameters())
    plain, rich = loss_of(flow, objective), loss_of(flow, objective, **TERMS[terms])
    for loss in (plain, rich):
        if loss.anchor is not None:
            loss.anchor.follow(0)
    assert products(rich, flow, x, parameters) == products(plain, flow, x, parameters) > 0


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_an_annealed_hyperparameter_follows_progress(share):
    flow, x = setting()
    loss = Loss(objectives.dsm, annealed={"sigma": geometric(1.0, 0.25)})
    expected = objectives.dsm(flow, x, generator=derive(0), sigma=4**-share)
    torch.testing.assert_close(called(loss, flow, x, share=share), expected, **CLOSE)
    assert loss.hyperparameters(share) == {"sigma": pytest.approx(4**-share)}


def test_geometric_falls_by_equal_factors():
    sigma = geometric(1.0, 0.01)
    for progress, value in {0.0: 1, 0.25: 10**-0.5, 0.5: 0.1, 1.0: 0.01, 1.5: 0.01}.items():
        assert sigma(progress) == pytest.approx(value)
    assert geometric(0.3, 0.3)(0.7) == pytest.approx(0.3)


def test_epochs_fall_at_their_ends_and_stay():
    factor = epochs(0.5, 10, 2)
    for step, value in {0: 1, 9: 1, 10: 0.5, 19: 0.5, 20: 0.25, 1000: 0.25}.items():
        assert factor(step) == value
