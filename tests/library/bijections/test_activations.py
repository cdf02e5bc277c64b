"""Activations: the formula, its ends, and Newton's inverse far out."""

import pytest
import torch

from ebflow.bijections import SmoothLeakyReLU

both = pytest.mark.parametrize("residual", [False, True])
centred = pytest.mark.parametrize("centred", [False, True])
FAR = torch.tensor([-1e3, -300.0, -40.0, -1.0, -1e-8, 0.0, 1e-8, 1.0, 40.0, 300.0, 1e3])


@both
@centred
@pytest.mark.parametrize("alpha", [0.01, 0.3, 0.99])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_newton_inverse_reaches_the_last_places(alpha, residual, centred, dtype):
    layer = SmoothLeakyReLU(alpha, residual=residual, centred=centred)
    dense = torch.linspace(-60, 60, 10_001)
    y = torch.cat([FAR, dense])[:, None].to(dtype)
    x = layer.inverse(y)
    assert x.dtype == dtype and x.isfinite().all()
    slope = layer.derivatives(x.double(), 1)[0]
    error = (layer(x.double()) - y.double()).abs() / slope
    allowed = 8 * torch.finfo(dtype).eps * (1 + x.abs().double())
    assert (error <= allowed).all(), (error / allowed).max()


@both
def test_values_and_slopes_at_the_ends(residual):
    layer = SmoothLeakyReLU(0.3, residual=residual)
    x = torch.tensor([[-1e3], [1e3]])
    low, high = 0.3 + residual, 1.0 + residual
    assert layer(x).tolist() == [[-1e3 * low], [1e3 * high]]
    slope, psi1, psi2 = layer.derivatives(x, 3)
    torch.testing.assert_close(slope, torch.tensor([[low], [high]]), rtol=1e-15, atol=0)
    assert not psi1.any() and not psi2.any()


def test_value_is_the_formula():
    x = torch.linspace(-5, 5, 101)[:, None]
    expected = 0.2 * x + 0.8 * (1 + x.exp()).log()
    torch.testing.assert_close(SmoothLeakyReLU(0.2)(x), expected, rtol=1e-14, atol=1e-14)
    residual = SmoothLeakyReLU(0.2, residual=True)(x)
    torch.testing.assert_close(residual, expected + x, rtol=1e-14, atol=1e-14)


@both
def test_centred_it_is_the_same_line_through_zero_of_slope_one(residual):
    plain, layer = (SmoothLeakyReLU(0.2, residual=residual, centred=c) for c in (False, True))
    x = torch.linspace(-5, 5, 101)[:, None]
    zero = torch.zeros(1, 1)
    slope = plain.derivatives(zero, 1)[0]
    torch.testing.assert_close(layer(x), (plain(x) - plain(zero)) / slope, rtol=1e-14, atol=1e-14)
    assert layer(zero).item() == 0 and layer.derivatives(zero, 1)[0].item() == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_newton_inverse_of_no_number_raises(value):
    with pytest.raises(ArithmeticError, match="Newton"):
        SmoothLeakyReLU(0.3).inverse(torch.tensor([[1.0, value]]))


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.3, 2.0, float("nan")])
def test_slope_outside_the_unit_interval_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha: found"):
        SmoothLeakyReLU(alpha)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_increases_everywhere(residual, dtype):
    """Finding 10: from one representable number to the next at 20, where PyTorch's softplus steps
    down, and at 50, where it becomes the identity; at least by the slope's rounding."""
    layer = SmoothLeakyReLU(0.3, residual=residual)
    for centre in (-50.0, -20.0, 0.0, 20.0, 50.0):
        x = [torch.tensor(centre, dtype=dtype)]
        for _ in range(200):
            x.append(torch.nextafter(x[-1], torch.tensor(1e9, dtype=dtype)))
        assert (layer(torch.stack(x)).diff() >= 0).all(), centre
    x = torch.linspace(19.9, 20.1, 100_001, dtype=torch.float64)
    assert (layer(x).diff() > 0).all()
