"""Layers that only move elements, and layers on the leading ones."""

import pytest
import torch

from ebflow.anchor import Anchor
from ebflow.bijections import ActNorm, Dense, Part, Reshape, SmoothLeakyReLU, Squeeze
from ebflow.flow import Flow

from .cases import matrix, seeded


def test_reshape_keeps_leading_dimensions():
    layer, v = Reshape((2, 3), (6,)), torch.arange(60.0).view(2, 5, 2, 3)
    assert layer.linear(v).shape == (2, 5, 6)
    assert torch.equal(layer.transpose(layer.linear(v)), v)


def test_shapes_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="differ in their number of elements"):
        Reshape((2, 3), (5,))


def test_squeeze_orders_channels_by_channel_row_column():
    x = torch.arange(16.0).view(1, 2, 2, 4)
    y = Squeeze((2, 2, 4))(x)
    assert y.shape == (1, 8, 1, 2)
    assert y[0, :, 0, 0].tolist() == [0, 1, 4, 5, 8, 9, 12, 13]
    assert y[0, :, 0, 1].tolist() == [2, 3, 6, 7, 10, 11, 14, 15]


def test_squeeze_tells_its_target():
    assert Squeeze((3, 4, 6)).target == (12, 2, 3)


@pytest.mark.parametrize("shape", [(1, 3, 2), (1, 2, 3), (4,), (1, 2)])
def test_shapes_that_cannot_be_halved_are_refused(shape):
    with pytest.raises(ValueError, match="shape: found"):
        Squeeze(shape)


def test_no_images_have_the_shape_of_images():
    layer = Squeeze((1, 2, 4))
    assert layer(torch.zeros(0, 1, 2, 4)).shape == (0, 4, 1, 2)
    assert layer.inverse(torch.zeros(3, 0, 4, 1, 2)).shape == (3, 0, 1, 2, 4)


def test_other_elements_pass():
    x = torch.randn(4, 9, generator=seeded(3))
    layer = Part(Squeeze((1, 2, 4)), (1, 2, 4))
    y = layer(x)
    assert torch.equal(y[:, 8:], x[:, 8:])
    assert torch.equal(y[:, :8], Squeeze((1, 2, 4))(x[:, :8].view(4, 1, 2, 4)).flatten(1))
    assert not hasattr(layer, "target")


@pytest.mark.parametrize("layer", [Dense(matrix(2), None), SmoothLeakyReLU(), ActNorm((2,))])
def test_it_is_what_its_layer_is(layer):
    found = Part(layer, (2,))
    assert found.constant_jacobian == layer.constant_jacobian
    assert not layer.constant_jacobian or found.unwrapped is layer


def test_statistics_are_those_of_the_leading_elements():
    inner = ActNorm((2,))
    layer, x = Part(inner, (2,)), torch.randn(50, 3, generator=seeded(3)) * 4 + 1
    assert not layer.initialized
    layer.initialize(x)
    assert layer.initialized
    torch.testing.assert_close(inner.shift.detach(), x[:, :2].mean(0))


def test_the_normalizer_and_the_anchor_see_its_volume():
    inner = Dense(matrix(2), torch.ones(2))
    flow = Flow((3,), [Part(inner, (2,)), Part(SmoothLeakyReLU(), (1,))])
    torch.testing.assert_close(flow.log_normalizer(), -torch.linalg.slogdet(inner.weight)[1])
    anchor = Anchor(flow)
    anchor.follow(0)
    assert anchor.lazy == [inner]
    torch.testing.assert_close(anchor.log_normalizer(), flow.log_normalizer())
