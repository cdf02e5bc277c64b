"""The lazily refreshed normaliser."""

import pytest
import torch

from ebflow.anchor import Anchor
from ebflow.bijections import Affine
from ebflow.errors import NonFinite
from ebflow.flow import Flow

from . import reference
from .test_flow import custom, net

CLOSE = dict(rtol=1e-10, atol=1e-10)


def refreshed(flow, **options):
    anchor = Anchor(flow, **options)
    anchor.refresh()
    return anchor


@torch.no_grad()
def move(flow, size):
    """Moves all weights by a fixed direction times ``size``."""
    generator = torch.Generator().manual_seed(5)
    for p in flow.parameters():
        p.add_(size * torch.randn(p.shape, generator=generator))


def affine():
    """Returns a flow with a cheap trainable scale beside dense layers."""
    scale = Affine(torch.zeros(4), torch.full((4,), 1.5), (4,), trainable=True)
    return Flow((4,), [scale, *net((4,)).layers])


FLOWS = {"dense": lambda: net((4,), depth=3), "affine": affine, "every kind of layer": custom}
flows = pytest.mark.parametrize("name", FLOWS)


@flows
def test_value_and_gradient_are_exact_at_a_refresh(name):
    flow = FLOWS[name]()
    parameters = list(flow.parameters())
    found, exact = refreshed(flow).log_normalizer(), flow.log_normalizer()
    torch.testing.assert_close(found, exact, **CLOSE)
    for a, b in zip(*(reference.gradients(t, parameters) for t in (found, exact)), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@flows
def test_value_is_the_first_order_one_after_it(name):
    """Its error falls with the square of the step, and its gradient stays that of the refresh."""
    flow = FLOWS[name]()
    start = {k: t.clone() for k, t in flow.state_dict().items()}
    anchor = refreshed(flow)
    weights = anchor.weights
    gradient = reference.gradients(flow.log_normalizer(), weights)
    errors = []
    for size in (1e-2, 1e-3):
        flow.load_state_dict(start)
        move(flow, size)
        found = anchor.log_normalizer()
        errors.append(abs(float((found - flow.log_normalizer()).detach())))
        for a, b in zip(reference.gradients(found, weights), gradient, strict=True):
            torch.testing.assert_close(a, b, **CLOSE)
    assert errors[0] > 1e-7 and 70 < errors[0] / errors[1] < 140


def test_cheap_log_dets_are_exact_at_every_step():
    flow = affine()
    anchor = refreshed(flow)
    scale = flow.layers[0].log_scale
    with torch.no_grad():
        scale.add_(0.7)
    torch.testing.assert_close(anchor.log_normalizer(), flow.log_normalizer(), **CLOSE)


@pytest.mark.parametrize("interval", [1, 3, 7])
def test_interval_rule(interval):
    anchor, at = Anchor(net((4,)), interval=interval), []
    for step in range(15):
        before = anchor.refreshes
        anchor.step()
        if anchor.refreshes > before:
            at.append(step)
    assert at == list(range(0, 15, interval))


def test_refresh_takes_the_present_weights():
    flow = net((4,))
    anchor = Anchor(flow, interval=2)
    for _ in range(5):
        anchor.step()
        if anchor.age == 1:
            torch.testing.assert_close(anchor.log_normalizer(), flow.log_normalizer(), **CLOSE)
        move(flow, 0.05)
    assert anchor.refreshes == 3


def test_adaptive_rule_refreshes_when_weights_have_moved():
    flow = net((4,))
    anchor = Anchor(flow, interval=10_000, tolerance=0.3, check_every=1)
    for _ in range(20):
        anchor.step()
    assert anchor.refreshes == 1
    drifts = []
    while anchor.refreshes == 1:
        move(flow, 0.01)
        drifts.append(anchor.drift)
        anchor.step()
    assert len(drifts) > 3 and drifts[1] < 0.1 < 0.2 < drifts[-1] < 0.3
    assert anchor.drift == 0.0 and anchor.age == 1


def test_drift_is_that_of_the_stale_inverse():
    """The relative change of W₀⁻¹ W over probes; for W = (1 + ε) W₀ it is ε at every probe."""
    flow = net((4,), depth=1)
    anchor = Anchor(flow, tolerance=1.0, check_every=1, interval=100)
    anchor.step()
    with torch.no_grad():
        flow.layers[0].weight.mul_(1.125)
    anchor.step()
    assert anchor.drift == pytest.approx(0.125, abs=1e-12)


def test_drift_is_by_the_inverse_on_the_left():
    """‖I − W₀⁻¹ W‖ / √D over many probes, to 5 %; the other order would give 100 times as much."""
    flow = net((2,), depth=1)
    start = torch.tensor([[1.0, 0.0], [0.0, 100.0]])
    weight = flow.layers[0].weight
    with torch.no_grad():
        weight.copy_(start)
    anchor = Anchor(flow, tolerance=1e9, check_every=1, interval=100, probes=20_000)
    anchor.step()
    with torch.no_grad():
        weight[1, 0] += 3.0
    anchor.step()
    change = torch.eye(2) - torch.linalg.inv(start) @ weight.detach()
    assert anchor.drift == pytest.approx(float(change.norm()) / 2**0.5, rel=0.05)


def test_drift_is_looked_at_as_seldom_as_asked():
    flow = net((4,))
    anchor = Anchor(flow, interval=100, tolerance=1e-9, check_every=5)
    anchor.step()
    move(flow, 0.1)
    for _ in range(4):
        anchor.step()
        assert anchor.refreshes == 1
    anchor.step()
    assert anchor.refreshes == 2


def test_state_goes_on_as_if_nothing_had_happened():
    flow = net((4,))
    anchor, other = (Anchor(flow, interval=4, tolerance=0.5, check_every=2) for _ in range(2))
    for _ in range(6):
        anchor.step()
        move(flow, 0.02)
    other.load({k: t.clone() for k, t in anchor.state().items()})
    for _ in range(9):
        for one in (anchor, other):
            one.step()
        assert torch.equal(anchor.log_normalizer(), other.log_normalizer())
        assert anchor.state().keys() == other.state().keys()
        assert all(torch.equal(t, other.state()[k]) for k, t in anchor.state().items())
        move(flow, 0.02)


def test_frozen_weights_are_not_modelled():
    flow = custom()
    anchor = refreshed(flow)
    frozen = flow.layers[7].weight
    assert all(weight is not frozen for weight in anchor.weights) and len(anchor.weights) == 2


def test_singular_weights_raise():
    flow = net((4,))
    with torch.no_grad():
        flow.layers[0].weight.zero_()
    with pytest.raises(NonFinite, match="singular"):
        Anchor(flow).step()


@pytest.mark.parametrize("name", ["interval", "check_every", "probes"])
def test_rules_below_one_are_refused(name):
    with pytest.raises(ValueError, match="at least 1"):
        Anchor(net((4,)), **{name: 0})
