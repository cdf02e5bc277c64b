"""Element-wise layers at the edges: Newton's inverse far out, domains, shapes."""

import pytest
import torch

from ebflow.bijections import Affine, Logit, SmoothLeakyReLU

from .. import reference

both = pytest.mark.parametrize("residual", [False, True])
precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
FAR = torch.tensor([-1e3, -300.0, -40.0, -1.0, -1e-8, 0.0, 1e-8, 1.0, 40.0, 300.0, 1e3])


@both
@pytest.mark.parametrize("alpha", [0.01, 0.3, 0.99])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_newton_inverse_reaches_the_last_places(alpha, residual, dtype):
    layer = SmoothLeakyReLU(alpha, residual=residual)
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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_newton_inverse_of_no_number_raises(value):
    with pytest.raises(ArithmeticError, match="Newton"):
        SmoothLeakyReLU(0.3).inverse(torch.tensor([[1.0, value]]))


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.3, 2.0, float("nan")])
def test_slope_outside_the_unit_interval_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha: found"):
        SmoothLeakyReLU(alpha)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.1, float("nan"), float("inf")])
def test_logit_outside_its_domain_raises(value):
    x = torch.tensor([[0.5, value]])
    for call in (Logit(), Logit().forward_and_log_det, Logit().linearize):
        with pytest.raises(ValueError, match="expected the open interval"):
            call(x)


def test_logit_is_the_formula():
    x = torch.linspace(0.001, 0.999, 101)[:, None]
    torch.testing.assert_close(Logit(0.5)(x), x.logit() / 0.5, rtol=1e-13, atol=1e-13)


@precisions
@pytest.mark.parametrize("margin", [1e-6, 1e-2, 0.3])
def test_an_extended_logit_is_the_logit_inside(margin, dtype):
    x = torch.linspace(margin, 1 - margin, 1001, dtype=dtype)[:, None]
    x = x[(x >= margin) & (x <= 1 - margin)][:, None]
    layer, plain = Logit(0.5, margin=margin), Logit(0.5)
    assert torch.equal(layer(x), plain(x))
    for one, other in zip(layer.derivatives(x, 3), plain.derivatives(x, 3), strict=True):
        assert torch.equal(one, other)
    close = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(layer.inverse(plain(x)), x, rtol=0, atol=close)


@precisions
@pytest.mark.parametrize("margin", [1e-6, 1e-2, 0.3])
def test_an_extended_logit_goes_on_as_its_tangents(margin, dtype):
    layer = Logit(0.5, margin=margin)
    ends = torch.tensor([margin, 1 - margin], dtype=dtype)[:, None]
    slope = layer.derivatives(ends, 1)[0]
    for far in (1e-3, 0.7, 100.0):
        x = ends + torch.tensor([-far, far], dtype=dtype)[:, None]
        found, psi1, psi2 = layer.derivatives(x, 3)
        assert torch.equal(found, slope) and not psi1.any() and not psi2.any()
        torch.testing.assert_close(layer(x), layer(ends) + (x - ends) * slope)
        torch.testing.assert_close(layer.inverse(layer(x)), x)


@precisions
def test_an_extended_logit_increases_over_its_ends(dtype):
    """No jump and no fall from one representable number to the next, where it is steepest."""
    layer, up = Logit(margin=1e-6), torch.tensor(2.0, dtype=dtype)
    for end in (1e-6, 1 - 1e-6):
        x = torch.tensor([end], dtype=dtype)
        for _ in range(4):
            x = torch.nextafter(x, -up)
        points = [x]
        for _ in range(8):
            points.append(torch.nextafter(points[-1], up))
        x = torch.stack(points)
        steps, slope = layer(x).double().diff(dim=0), layer.derivatives(x.double(), 1)[0][1:]
        rounding = 16 * torch.finfo(dtype).eps * layer(x).abs().max()
        expected = slope * x.double().diff(dim=0)
        assert ((steps - expected).abs() <= 0.3 * expected + rounding).all()


@pytest.mark.parametrize("margin", [0.0, -0.1, 0.5, 1.0, float("nan")])
def test_margins_that_leave_no_inside_are_refused(margin):
    with pytest.raises(ValueError, match="margin: found"):
        Logit(margin=margin)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_scales_that_are_not_positive_are_refused(scale):
    with pytest.raises(ValueError, match="scale: found"):
        Logit(scale)
    with pytest.raises(ValueError, match="scale: found"):
        Affine(0.0, scale, (3,))


@pytest.mark.parametrize("trainable", [False, True])
def test_affine_holds_parameters_or_buffers(trainable):
    layer = Affine(torch.zeros(3), torch.full((3,), 2.0), (3,), trainable=trainable)
    names = {"shift", "log_scale"}
    assert set(dict(layer.named_parameters())) == (names if trainable else set())
    assert set(dict(layer.named_buffers())) == (set() if trainable else names)
    assert set(layer.state_dict()) == names
    torch.testing.assert_close(layer(torch.ones(2, 3)), torch.full((2, 3), 2.0))


def test_affine_learns_its_scale():
    layer = Affine(torch.zeros(2), torch.ones(2), (2,), trainable=True)
    gradient = reference.gradients(layer.log_det(), list(layer.parameters()))
    assert [g.tolist() for g in gradient] == [[0.0, 0.0], [1.0, 1.0]]


def test_affine_copies_what_it_is_given():
    shift = torch.zeros(2)
    layer = Affine(shift, torch.ones(2), (2,))
    shift += 1
    assert layer.shift.tolist() == [0.0, 0.0]
