"""The lazily refreshed normalizer."""

import pytest
import torch

from ebflow import anchor as anchors
from ebflow.anchor import Anchor
from ebflow.bijections import Affine, Dense, Part, SmoothLeakyReLU
from ebflow.bijections.weighted import fixed_weights
from ebflow.errors import NonFinite
from ebflow.flow import Flow

from . import reference
from .bijections.cases import matrix, pointwise, seeded
from .flows import custom, images, net

CLOSE = dict(rtol=1e-10, atol=1e-10)


def refreshed(flow, **options):
    anchor = Anchor(flow, **options)
    anchor.refresh()
    return anchor


def step(anchor):
    """Tells an anchor of the next training step."""
    anchor.follow(anchor.step + 1)


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


def pixelwise():
    """Returns a flow of 1×1 convolutions."""
    first = pointwise(matrix(2), (2, 2), torch.ones(2))
    return Flow((2, 2, 2), [first, SmoothLeakyReLU(), pointwise(matrix(2, 1), (2, 2))])


def parts():
    """Returns a flow whose costly layers act on parts of an event."""
    pixels = Part(pointwise(matrix(2, 1), (1, 2)), (2, 1, 2))
    return Flow((5,), [Part(Dense(matrix(3), torch.ones(3)), (3,)), SmoothLeakyReLU(), pixels])


FLOWS = {
    "dense": lambda: net((4,), depth=3),
    "affine": affine,
    "every kind of layer": custom,
    "zero": lambda: images((1, 4, 2)),
    "pointwise": pixelwise,
    "parts": parts,
}
flows = pytest.mark.parametrize("name", FLOWS)
LAZY = ["dense", "zero", "pointwise", "parts"]
lazy = pytest.mark.parametrize("name", LAZY)


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
    weights = [layer.weight for layer in anchor.lazy]
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
    for k in range(15):
        before = anchor.refreshes
        for _ in range(3):  # however often it is told of a step
            anchor.follow(k)
        if anchor.refreshes > before:
            at.append(k)
    assert at == list(range(0, 15, interval))


def test_before_a_refresh_it_has_no_value():
    with pytest.raises(RuntimeError, match="found no refresh"):
        Anchor(net((4,))).log_normalizer()


def test_adaptive_rule_refreshes_when_weights_have_moved():
    flow = net((4,))
    anchor = Anchor(flow, interval=10_000, tolerance=0.3, check_every=1)
    for _ in range(20):
        step(anchor)
    assert anchor.refreshes == 1
    drifts = []
    while anchor.refreshes == 1:
        move(flow, 0.01)
        drifts.append(anchor.drift)
        step(anchor)
    assert len(drifts) > 3 and drifts[1] < 0.1 < 0.2 < drifts[-1] < 0.3
    assert anchor.drift == 0.0 and anchor.age == 1


@lazy
def test_drift_is_that_of_the_stale_inverse(name):
    """The relative change of J₀⁻¹ J over probes; for J = (1 + ε) J₀ it is ε at every probe."""
    flow = FLOWS[name]()
    anchor = Anchor(flow, tolerance=1.0, check_every=1, interval=100)
    step(anchor)
    with torch.no_grad():
        for layer in anchor.lazy:
            layer.weight.mul_(1.125)
    step(anchor)
    assert anchor.drift == pytest.approx(0.125, abs=1e-12)


@lazy
@pytest.mark.parametrize("which", [0, -1])
def test_drift_is_that_of_the_layer_that_moved_most(name, which, monkeypatch):
    """‖I − J₀⁻¹ J‖ / √D of one layer over many probes, to 5 %."""
    flow = FLOWS[name]()
    monkeypatch.setattr(anchors, "PROBES", 20_000)
    anchor = Anchor(flow, tolerance=1e9, check_every=1, interval=100)
    layer = anchor.lazy[which]
    start = reference.jacobian(layer, torch.zeros(1, *layer.event_shape))[0].detach()
    step(anchor)
    with torch.no_grad():
        layer.weight += 0.2 * torch.randn(layer.weight.shape, generator=seeded(8))
    step(anchor)
    moved = reference.jacobian(layer, torch.zeros(1, *layer.event_shape))[0].detach()
    change = torch.eye(len(start)) - torch.linalg.solve(start, moved)
    assert anchor.drift == pytest.approx(float(change.norm()) / len(start) ** 0.5, rel=0.05)


@lazy
def test_nothing_but_gradients_and_weights_is_stored(name):
    flow = FLOWS[name]()
    anchor = refreshed(flow)
    found = {k: t.numel() for k, t in anchor.state().items() if k not in ("counts", "offset")}
    assert found == {
        f"{kept}.{i}": layer.weight.numel()
        for i, layer in enumerate(anchor.lazy)
        for kept in ("gradient", "weight")
    }
    kept = {k: t.clone() for k, t in anchor.state().items()}
    move(flow, 1.0)
    assert all(torch.equal(t, kept[k]) for k, t in anchor.state().items())


def test_normalized_weights_are_followed_through_their_parametrization():
    """Exact by the leaves at a refresh; after it, log Z is linear in W and not in the leaves."""
    flow = images((1, 2, 2), spectral_norm=True)
    parameters, anchor = list(flow.parameters()), refreshed(flow)
    found, exact = anchor.log_normalizer(), flow.log_normalizer()
    torch.testing.assert_close(found, exact, **CLOSE)
    for a, b in zip(*(reference.gradients(t, parameters) for t in (found, exact)), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)
    with torch.no_grad():
        for p in parameters:
            p.mul_(3.0)  # leaves every normalized weight as it is
        torch.testing.assert_close(anchor.log_normalizer(), exact, **CLOSE)
    anchor.tolerance, anchor.age = 1e-9, anchor.check_every
    step(anchor)
    assert anchor.refreshes == 1 and anchor.drift < 1e-12


def test_weights_that_training_normalizes_on_are_read_once_a_refresh():
    """The value kept is that of the weights of the refresh, whatever later reads change."""
    flow = images((1, 2, 2), spectral_norm=True).train()
    anchor = Anchor(flow)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(torch.randn(p.shape, generator=seeded(2)))
    with fixed_weights(flow):
        anchor.refresh()
        torch.testing.assert_close(anchor.log_normalizer(), flow.log_normalizer(), **CLOSE)


def test_drift_is_looked_at_as_seldom_as_asked():
    flow = net((4,))
    anchor = Anchor(flow, interval=100, tolerance=1e-9, check_every=5)
    step(anchor)
    move(flow, 0.1)
    for _ in range(4):
        step(anchor)
        assert anchor.refreshes == 1
    step(anchor)
    assert anchor.refreshes == 2


@lazy
def test_state_goes_on_as_if_nothing_had_happened(name):
    flow = FLOWS[name]()
    anchor, other = (Anchor(flow, interval=4, tolerance=0.5, check_every=2) for _ in range(2))
    for _ in range(6):
        step(anchor)
        move(flow, 0.02)
    other.load({k: t.clone() for k, t in anchor.state().items()})
    for _ in range(9):
        for one in (anchor, other):
            step(one)
        assert torch.equal(anchor.log_normalizer(), other.log_normalizer())
        assert anchor.state().keys() == other.state().keys()
        assert all(torch.equal(t, other.state()[k]) for k, t in anchor.state().items())
        move(flow, 0.02)


def test_frozen_weights_are_not_modelled():
    flow = custom()
    anchor = refreshed(flow)
    frozen = flow.layers[6].weight
    weights = [layer.weight for layer in anchor.lazy]
    assert all(weight is not frozen for weight in weights) and len(weights) == 2


@lazy
def test_singular_weights_raise(name):
    flow = FLOWS[name]()
    with torch.no_grad():
        flow.layers[0].unwrapped.weight.zero_()
    with pytest.raises(NonFinite, match="singular"):
        Anchor(flow).refresh()


@pytest.mark.parametrize("name", ["interval", "check_every"])
def test_rules_below_one_are_refused(name):
    with pytest.raises(ValueError, match="at least 1"):
        Anchor(net((4,)), **{name: 0})


def test_a_restored_anchor_takes_the_next_step_whatever_it_did_before():
    flow = net((4,))
    anchor = Anchor(flow, interval=10)
    for step in (0, 1):
        anchor.follow(step)
    state = anchor.state()
    anchor.follow(2)
    assert anchor.age == 3
    anchor.load(state)
    anchor.follow(2)
    assert anchor.age == 3


def test_it_is_of_the_highest_precision_under_autocast(single_precision):
    flow = images(noise=0.1).float()
    anchor = Anchor(flow, interval=1, tolerance=0.1, check_every=1)
    with torch.autocast("cpu", torch.bfloat16):
        anchor.follow(0)
        anchor.age = 0
        anchor.follow(1)
    torch.testing.assert_close(
        anchor.log_normalizer(), flow.log_normalizer(), atol=1e-4, rtol=1e-4
    )
