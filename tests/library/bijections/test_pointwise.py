"""1×1 convolutions: one matrix at every pixel, held whole or by factors."""

import pytest
import torch

from ebflow.bijections import Pointwise, random_rotation

from .. import reference
from .cases import matrix, seeded

CLOSE = dict(rtol=1e-10, atol=1e-10)
forms = pytest.mark.parametrize("factorised", [False, True])


def pair(factorised):
    layer = Pointwise(matrix(4), (2, 3), torch.arange(4.0), factorised=factorised)
    return layer, torch.randn(5, 4, 2, 3, generator=seeded())


@forms
def test_every_pixel_is_mapped_by_the_matrix(factorised):
    layer, x = pair(factorised)
    y = torch.einsum("oc,bchw->bohw", matrix(4), x) + torch.arange(4.0).view(4, 1, 1)
    torch.testing.assert_close(layer(x), y, **CLOSE)


@forms
def test_log_det_counts_pixels(factorised):
    expected = 6 * torch.linalg.slogdet(matrix(4))[1]
    for gradient in (True, False):
        with torch.set_grad_enabled(gradient):
            torch.testing.assert_close(pair(factorised)[0].log_det(), expected, **CLOSE)


def test_factors_start_as_the_matrix_and_keep_their_form():
    """Whatever the parameters become, P L (U + S) has the determinant that they tell."""
    layer = Pointwise(matrix(4), (1, 1), factorised=True)
    torch.testing.assert_close(layer.effective_weight(), matrix(4), **CLOSE)
    sign = torch.linalg.slogdet(matrix(4))[0]
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.randn(p.shape, generator=seeded(3)))
    found = torch.linalg.slogdet(layer.effective_weight())
    torch.testing.assert_close(found[1], layer.log_scale.sum(), **CLOSE)
    torch.testing.assert_close(found[0], sign, **CLOSE)


def test_log_det_by_factors_needs_no_factorisation(monkeypatch):
    layer, x = pair(True)
    for name in ("slogdet", "lu_factor_ex", "solve", "inv"):
        monkeypatch.delattr(torch.linalg, name)
    layer.log_det().backward()
    assert torch.equal(layer.log_scale.grad, torch.full((4,), 6.0))
    layer.linearize(x).pullback(x)


def test_entries_outside_the_factors_get_no_gradient():
    layer, x = pair(True)
    layer(x).sin().sum().backward()
    assert not layer.lower.grad.triu().any() and not layer.upper.grad.tril().any()


@forms
def test_inverse_is_differentiable(factorised):
    layer, y = pair(factorised)
    bias = layer.bias.view(4, 1, 1)
    slow = torch.einsum("oc,bchw->bohw", torch.linalg.inv(layer.effective_weight()), y - bias)
    parameters = list(layer.parameters())
    pairs = (reference.gradients(t.sin().sum(), parameters) for t in (layer.inverse(y), slow))
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("channels", [1, 2, 5, 8])
@forms
def test_random_rotations_rotate(channels, factorised):
    layer = random_rotation((channels, 2, 2), factorised=factorised, generator=seeded(4))
    w = layer.effective_weight()
    torch.testing.assert_close(w @ w.mT, torch.eye(channels), **CLOSE)
    torch.testing.assert_close(torch.linalg.det(w), torch.tensor(1.0), **CLOSE)
    again = random_rotation((channels, 2, 2), generator=seeded(4))
    torch.testing.assert_close(again.weight, w, **CLOSE)


def test_random_rotations_are_uniform():
    """Entries of rotations of 3 dimensions have mean 0 and mean square 1/3, to 5 errors."""
    generator, n = seeded(5), 1000**0.5
    entries = torch.stack(
        [random_rotation((3, 1, 1), generator=generator).weight.detach() for _ in range(1000)]
    )
    for values, expected in ((entries, 0), (entries**2, 1 / 3)):
        assert ((values.mean(0) - expected).abs() < 5 * values.std(0) / n).all()


@forms
def test_single_precision(factorised):
    layer, x = pair(factorised)
    y, single = layer(x), layer.float()
    with torch.no_grad():
        assert single.log_det().dtype == torch.float32
        found = single.inverse(y.float())
    torch.testing.assert_close(found, x.float(), rtol=1e-4, atol=1e-4)


def test_what_is_no_pointwise_layer_is_refused():
    with pytest.raises(ValueError, match="weight: found shape"):
        Pointwise(torch.ones(2, 3), (2, 2))
    with pytest.raises(ValueError, match="size: found"):
        Pointwise(torch.eye(2), (2,))
