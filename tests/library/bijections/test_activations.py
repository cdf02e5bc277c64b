"""Activations: formulas, starts, ends, inverses far out, and what autograd keeps of them."""

import math

import pytest
import torch

from ebflow.bijections import MonotoneSpline, SmoothLeakyReLU
from ebflow.bijections.activations import root

from .cases import seeded, stirred

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
    """From one representable number to the next at 20, where PyTorch's softplus steps
    down, and at 50, where it becomes the identity; at least by the slope's rounding."""
    layer = SmoothLeakyReLU(0.3, residual=residual)
    for centre in (-50.0, -20.0, 0.0, 20.0, 50.0):
        x = [torch.tensor(centre, dtype=dtype)]
        for _ in range(200):
            x.append(torch.nextafter(x[-1], torch.tensor(1e9, dtype=dtype)))
        assert (layer(torch.stack(x)).diff() >= 0).all(), centre
    x = torch.linspace(19.9, 20.1, 100_001, dtype=torch.float64)
    assert (layer(x).diff() > 0).all()


def spline():
    return MonotoneSpline((3,), cells=6)


def points(batch=7):
    return 2 * torch.randn(batch, 3, generator=seeded(2))


def test_a_spline_is_exact_in_float64_whatever_the_default_type(single_precision):
    layer = MonotoneSpline((1,), cells=10, reach=1.7).double()
    x = torch.linspace(-3, 3, 10_001, dtype=torch.float64)[:, None]
    assert float((layer(x) - x).abs().max()) < 1e-14


def test_a_spline_goes_on_in_its_lines_however_far():
    layer = MonotoneSpline((1,))
    with torch.no_grad():
        layer.log_slopes[0, -1], layer.log_slopes[0, 0] = 1.0, -1.0
    for far in (1e6, 4e18, 6e18, 1e30):
        x = torch.tensor([[far], [-far]])
        torch.testing.assert_close(
            layer(x) / x, torch.tensor([[1.0], [-1.0]]).exp(), rtol=1e-4, atol=0
        )
    assert layer(torch.tensor([[float("nan")]])).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_the_inverse_reaches_the_last_places(dtype, scale):
    """To 8 ε (R + |x|), and what the rounding of f leaves where its slope is small."""
    layer = stirred(spline(), scale).to(dtype)
    y = torch.cat([torch.linspace(-20, 20, 3001), torch.tensor([-1e9, -1e3, 1e3, 1e9])])
    y = y[:, None].expand(-1, 3).to(dtype)
    x = layer.inverse(y)
    assert x.dtype == dtype and x.isfinite().all()
    layer, x, y = layer.double(), x.double(), y.double()
    value, slope = layer.local(x, 1)[:2]
    epsilon = 8 * torch.finfo(dtype).eps
    allowed = epsilon * (layer.reach + x.abs()) + epsilon * (40 + y.abs()) / slope
    assert ((value - y).abs() / slope <= allowed).all()


def test_the_inverse_of_no_number_is_none():
    layer = stirred(spline())
    with torch.no_grad():
        found = layer.inverse(torch.tensor([[math.nan, math.inf, -math.inf], [0.0, 1.0, 2.0]]))
    assert found[0, 0].isnan() and found[0, 1] == math.inf and found[0, 2] == -math.inf
    assert found[1].isfinite().all()


def test_roots_between_steep_steps():
    """Plateaus send Newton's iteration from one step to another."""
    centres = torch.tensor([-3.0, 0.5, 2.0])

    def excess(x):
        steps = torch.tanh(40 * (x[:, None] - centres))
        return 0.01 * x + steps.sum(1) - y, 0.01 + (40 * (1 - steps.square())).sum(1)

    y = torch.linspace(-5, 5, 101)
    x = root(excess, torch.full_like(y, -1000.0), torch.full_like(y, 1000.0), 1.0)
    value, slope = excess(x)
    assert (value.abs() <= 1e-11 * (1 + slope * (1 + x.abs()))).all()


def test_transforms_of_functions_go_through():
    """``torch.func.grad``, alone and vectorized, and by parameters."""
    layer, x = stirred(spline()), points(4)

    def log_det(x):
        return layer.forward_and_log_det(x)[1].sum()

    def squares(parameters):
        return torch.func.functional_call(layer, parameters, (x,)).square().sum()

    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(log_det(leaf), leaf)[0]
    torch.testing.assert_close(torch.func.grad(log_det)(x), expected)
    rows = torch.func.vmap(torch.func.grad(lambda row: log_det(row[None])))(x)
    torch.testing.assert_close(rows, expected)
    named = dict(layer.named_parameters())
    found = torch.func.grad(squares)({path: p.detach() for path, p in named.items()})
    gradients = torch.autograd.grad(squares(named), list(named.values()))
    for gradient, other in zip(gradients, found.values(), strict=True):
        torch.testing.assert_close(other, gradient)


def test_gradients_of_gradients():
    """Of value and derivatives, by differences; a cubic's third derivative has jumps."""
    layer, x = stirred(spline()), points(3).requires_grad_()
    names, parameters = zip(*layer.named_parameters(), strict=True)
    layer.forward = lambda x: layer.local(x, 3)[:3]

    def parts(x, *given):
        return torch.func.functional_call(layer, dict(zip(names, given, strict=True)), (x,))

    assert torch.autograd.gradcheck(parts, (x, *parameters))
    assert torch.autograd.gradgradcheck(parts, (x, *parameters))


def test_nothing_is_kept_of_every_step_and_element():
    layer = MonotoneSpline((5,), cells=60)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape), id):
        layer.linearize(torch.randn(100, 5, requires_grad=True))
    parameters = sum(p.numel() for p in layer.parameters())
    assert 0 < sum(shape.numel() for shape in kept) <= 13 * 500 + 20 * parameters
