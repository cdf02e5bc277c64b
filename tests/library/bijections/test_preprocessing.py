"""Preprocessing layers: dequantization, the logit, affine normalization, statistics."""

import copy

import pytest
import torch

from ebflow.bijections import ActNorm, Affine, Dequantize, Logit
from ebflow.flow import Flow

from .cases import channels, seeded, standard

precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
integer_types = pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int64, torch.float32, torch.float64]
)


def completed(x, levels=17, like=None, seed=0):
    like = torch.zeros(()) if like is None else like
    return Dequantize(levels).dequantize(x, like, seeded(seed))


@integer_types
def test_noise_is_uniform_on_the_unit_cell(dtype):
    """Kolmogorov-Smirnov at a false-alarm rate of 1e-4: D √n < 2.23."""
    x = torch.randint(0, 17, (200, 50), generator=seeded(1)).to(dtype)
    y = completed(x)
    u = (y - x.double()).flatten().sort().values
    assert u[0] >= 0 and u[-1] < 1
    n = len(u)
    gap = (u - torch.arange(n) / n).abs().max()
    assert gap * n**0.5 < 2.23


@integer_types
def test_inverse_gives_the_integers_back(dtype):
    x = torch.randint(0, 17, (200, 50), generator=seeded(1)).to(dtype)
    y = completed(x)
    assert torch.equal(Dequantize(17).inverse(y), x.double())


def test_single_precision_never_reaches_the_next_level():
    """At 65535 a float32 has 1/128 between neighbours, and x + u would often round up to x + 1."""
    x = torch.full((1000, 100), 65534, dtype=torch.int32)
    y = completed(x, 65536, like=torch.zeros((), dtype=torch.float32))
    assert y.dtype == torch.float32
    assert torch.equal(Dequantize(65536).inverse(y), x.float())


@pytest.mark.parametrize("value", [-1.0, 17.0, -1e-9, float("nan"), float("inf")])
def test_values_out_of_range_raise(value):
    x = torch.tensor([[1.0, value]])
    with pytest.raises(ValueError, match=r"expected \[0, 17\)"):
        Dequantize(17).check(x)
    with pytest.raises(ValueError, match=r"expected (\[0, 17\)|a finite number)"):
        Flow((2,), [Dequantize(17)]).log_prob(x)


def test_inverse_clamps_to_the_levels():
    y = torch.tensor([[-0.2, 17.3, 16.5]])
    assert Dequantize(17).inverse(y).tolist() == [[0.0, 16.0, 16.0]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
@pytest.mark.parametrize("shape", [(0, 4), (0, 1, 2, 2)])
def test_no_rows_are_completed(dtype, shape):
    assert completed(torch.zeros(shape, dtype=dtype)).shape == shape


# The logit


@precisions
@pytest.mark.parametrize("margin", [1e-6, 1e-2, 0.3])
def test_logit_is_the_formula(margin, dtype):
    x = torch.linspace(0, 1, 1001, dtype=dtype)[:, None]
    layer, share = Logit(0.5, margin=margin), margin + (1 - 2 * margin) * x.double()
    close = dict(rtol=0, atol=1e-9 if dtype == torch.float64 else 1e-5)
    torch.testing.assert_close(layer(x).double(), share.logit() / 0.5, **close)
    torch.testing.assert_close(layer.inverse(layer(x)), x, rtol=0, atol=4 * torch.finfo(dtype).eps)


@precisions
@pytest.mark.parametrize("margin", [1e-6, 1e-2, 0.3])
def test_a_logit_continues_as_its_tangents(margin, dtype):
    layer = Logit(0.5, margin=margin)
    ends = torch.tensor([0.0, 1.0], dtype=dtype)[:, None]
    slope = layer.derivatives(ends, 1)[0]
    for far in (1e-3, 0.7, 100.0):
        x = ends + torch.tensor([-far, far], dtype=dtype)[:, None]
        found, psi1, psi2 = layer.derivatives(x, 3)
        assert torch.equal(found, slope) and not psi1.any() and not psi2.any()
        torch.testing.assert_close(layer(x), layer(ends) + (x - ends) * slope)
        torch.testing.assert_close(layer.inverse(layer(x)), x)


@precisions
def test_a_logit_increases_over_its_ends(dtype):
    """No jump and no fall from one representable number to the next, where it is steepest."""
    layer, up = Logit(margin=1e-6), torch.tensor(2.0, dtype=dtype)
    for end in (0.0, 1.0):
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


@pytest.mark.parametrize(("make", "values", "line"), [
    (Dequantize, (1, 0, -3), "levels: found"),
    (lambda margin: Logit(margin=margin), (0.0, -0.1, 0.5, float("nan")), "margin: found"),
    (Logit, (0.0, -1.0, float("nan")), "scale, upper: found"),
    (lambda scale: Affine(0.0, scale, (3,)), (0.0, -1.0, float("nan")), "scale: found"),
])  # fmt: skip
def test_levels_margins_and_scales_that_make_no_layer_are_refused(make, values, line):
    for value in values:
        with pytest.raises(ValueError, match=line):
            make(value)


LEVELS = dict(upper=256, margin=1e-6)


def test_single_precision_is_as_good_at_either_end():
    """|mean error| of log p below 2e-6 nats a pixel against float64, at saturation."""
    layer = Logit(0.5, **LEVELS)
    u = torch.rand(100_000, 1, generator=seeded()).float()
    for level in (0, 255, 128):
        x = torch.minimum(level + u, torch.nextafter(torch.tensor(level + 1.0).float(), u[:1]))
        exact, found = (
            (-0.5 * layer(t).square() + layer.derivatives(t, 1)[0].log()).double()
            for t in (x.double(), x)
        )
        error = (found - exact).squeeze(1)
        assert abs(error.mean()) < 2e-6 and error.abs().max() < 1e-3, level


@pytest.mark.parametrize("margin", [1e-7, 1e-9])
@precisions
def test_small_margins_take_the_largest_level(margin, dtype):
    """A completed 255 is below 256 also in float32, and no logit refuses it."""
    x = torch.tensor([[0.0, 255.0]], dtype=dtype)
    last = torch.nextafter(torch.tensor(256.0, dtype=dtype), torch.tensor(0.0, dtype=dtype))
    layer = Logit(upper=256, margin=margin)
    y = layer(torch.stack([last, x[0, 1]])[None])
    assert y.isfinite().all() and (y[0, 0] > y[0, 1])
    assert layer(x).isfinite().all()


@precisions
def test_ends_are_symmetric_and_their_inverse_is_exact(dtype):
    layer, x = Logit(0.5, **LEVELS), torch.linspace(0, 256, 2049, dtype=dtype)
    y = layer(x)
    assert torch.equal(y, -y.flip(0))
    close = dict(rtol=8 * torch.finfo(dtype).eps, atol=256 * torch.finfo(dtype).eps)
    torch.testing.assert_close(layer.inverse(y), x, **close)
    share = (1 - 2e-6) * x.double() / 256 + 1e-6
    torch.testing.assert_close(layer(x.double()), share.logit() / 0.5, rtol=1e-8, atol=1e-8)


# Affine


@pytest.mark.parametrize("trainable", [False, True])
def test_affine_holds_parameters_or_buffers(trainable):
    layer = Affine(torch.zeros(3), torch.full((3,), 2.0), (3,), trainable=trainable)
    names = {"shift", "log_scale"}
    assert set(dict(layer.named_parameters())) == (names if trainable else set())
    assert set(dict(layer.named_buffers())) == (set() if trainable else names)
    assert set(layer.state_dict()) == names
    torch.testing.assert_close(layer(torch.ones(2, 3)), torch.full((2, 3), 2.0))


def test_affine_copies_what_it_is_given():
    shift = torch.zeros(2)
    layer = Affine(shift, torch.ones(2), (2,))
    shift += 1
    assert layer.shift.tolist() == [0.0, 0.0]


# Statistics of a batch


@pytest.mark.parametrize("shape", [(50, 3), (8, 3, 2, 4)])
def test_a_batch_becomes_standard(shape):
    layer, x = ActNorm(shape[1:]), channels(*shape)
    assert not layer.initialized and torch.equal(layer(x), x)
    layer.initialize(x)
    assert layer.initialized and layer.log_scale.requires_grad
    standard(layer(x))


def test_a_constant_channel_keeps_its_scale():
    layer, x = ActNorm((3,)), channels(50, 3)
    x[:, 1] = 7.0
    layer.initialize(x)
    assert layer.log_scale[1] == 0 and layer.shift[1] == 7
    layer.initialize(x[:1])
    assert torch.equal(layer.shift, x[0]) and not layer.log_scale.any()


def test_a_state_and_a_copy_carry_it():
    layer, x = ActNorm((3,)), channels(50, 3)
    layer.initialize(x)
    other = ActNorm((3,))
    other.load_state_dict(layer.state_dict())
    for one in (other, copy.deepcopy(layer)):
        assert one.initialized and torch.equal(one(x), layer(x))
    assert layer.float().initialized
