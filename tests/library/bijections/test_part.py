"""Layers on the leading elements: what they pass, and what others see of them."""

import pytest
import torch

from ebflow.anchor import Anchor
from ebflow.bijections import ActNorm, Dense, Part, SmoothLeakyReLU, Squeeze, part
from ebflow.flow import Flow

from .. import reference
from .cases import matrix, seeded


def test_other_elements_pass():
    x = torch.randn(4, 9, generator=seeded(3))
    layer = part(Squeeze((1, 2, 4)), (1, 2, 4))
    y = layer(x)
    assert torch.equal(y[:, 8:], x[:, 8:])
    assert torch.equal(y[:, :8], Squeeze((1, 2, 4))(x[:, :8].view(4, 1, 2, 4)).flatten(1))
    assert not hasattr(layer, "target")


@pytest.mark.parametrize("layer", [Dense(matrix(2), None), SmoothLeakyReLU(), ActNorm((2,))])
def test_it_is_what_its_layer_is(layer):
    found = part(layer, (2,))
    assert isinstance(found, Part)
    assert found.constant_jacobian == layer.constant_jacobian
    if layer.constant_jacobian:
        assert found.lazy == layer.lazy
        pairs = zip(found.volume_parameters(), layer.volume_parameters(), strict=True)
        assert all(a is b for a, b in pairs)


def test_statistics_are_those_of_the_leading_elements():
    inner = ActNorm((2,))
    layer, x = part(inner, (2,)), torch.randn(50, 3, generator=seeded(3)) * 4 + 1
    assert not layer.initialised
    layer.initialise(x)
    assert layer.initialised
    torch.testing.assert_close(inner.shift.detach(), x[:, :2].mean(0))


def test_the_normaliser_and_the_anchor_see_its_volume():
    inner = Dense(matrix(2), torch.ones(2))
    flow = Flow((3,), [part(inner, (2,)), part(SmoothLeakyReLU(), (1,))])
    torch.testing.assert_close(flow.log_normalizer(), -torch.linalg.slogdet(inner.weight)[1])
    anchor = Anchor(flow)
    anchor.step()
    assert anchor.weights == [inner.weight]
    torch.testing.assert_close(anchor.log_normalizer(), flow.log_normalizer())


@pytest.mark.parametrize("way", ["gathered", "relative"])
def test_training_uses_the_ways_of_its_layer(way):
    """One product a step for a dense weight, and relative gradients."""
    inner, x = Dense(matrix(2), torch.ones(2)), torch.randn(5, 3, generator=seeded(3))
    layer = part(inner, (2,))
    s = torch.randn(5, 3, generator=seeded(4))

    def values(f, x, s):
        if way == "relative":
            return sum(t.sin().sum() for t in f.relative(x))
        at = f.linearize(x, training=True)
        return at.y.sin().sum() + at.pullback(s + at.y).sin().sum()

    found = reference.gradients(values(layer, x, s), [inner.weight])[0]
    here = reference.gradients(values(inner, x[:, :2], s[:, :2]), [inner.weight])[0]
    torch.testing.assert_close(found, here, rtol=1e-12, atol=1e-12)
