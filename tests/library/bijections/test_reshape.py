"""Layers that only move elements."""

import pytest
import torch

from ebflow.bijections import Permutation, Reshape, Squeeze


def test_permutation_is_indexing():
    x = torch.arange(6.0).view(2, 3)
    assert Permutation(torch.tensor([2, 0, 1]))(x).tolist() == [[2.0, 0.0, 1.0], [5.0, 3.0, 4.0]]


@pytest.mark.parametrize("order", [[0, 0, 1], [1, 2, 3], [0, 1, 3], [-1, 0, 1]])
def test_orders_that_are_no_permutation_are_refused(order):
    with pytest.raises(ValueError, match="expected a permutation"):
        Permutation(torch.tensor(order))


def test_reshape_keeps_leading_dimensions():
    layer, v = Reshape((2, 3), (6,)), torch.arange(60.0).view(2, 5, 2, 3)
    assert layer.linear(v).shape == (2, 5, 6)
    assert torch.equal(layer.transpose(layer.linear(v)), v)


def test_shapes_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="differ in their number of elements"):
        Reshape((2, 3), (5,))


def test_state_dict_keeps_the_order():
    layer, other = (Permutation(torch.tensor(o)) for o in ([2, 0, 1], [0, 1, 2]))
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(other(x), layer(x)) and torch.equal(other.inverse(layer(x)), x)


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
