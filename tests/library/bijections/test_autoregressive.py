"""Autoregressive layers: the order of their elements, widths, and extreme inputs."""

import pytest
import torch

from ebflow.bijections import Autoregressive, ScaleShift, Spline

from .. import reference
from .cases import seeded, stirred

SPLINE = Spline(3)


def layer(size=4, context=0, transform=SPLINE, **options):
    """Returns a layer off its start, given contexts of five rows."""
    made = stirred(Autoregressive(size, transform, context=context, **options))
    return made.condition(torch.randn(5, context, generator=seeded(6))) if context else made


def points(size=4, rows=5):
    return torch.randn(rows, size, generator=seeded(7))


@pytest.mark.parametrize("context", [0, 2])
def test_an_element_sees_those_before_it_alone(context):
    J = reference.jacobian(layer(context=context, hidden=8), points())
    below = torch.ones(4, 4).tril().bool()
    assert (J[:, ~below] == 0).all() and (J[:, below] != 0).all()


@pytest.mark.parametrize(("size", "context"), [(1, 2), (3, 2), (36, 1)])
def test_every_element_sees_the_context(size, context):
    made = stirred(Autoregressive(size, Spline(3), context=context), 0.1)
    c, x = torch.randn(1, context, generator=seeded(6)), points(size, 1)
    J = torch.autograd.functional.jacobian(lambda c: made.condition(c)(x)[0], c)
    assert (J != 0).all()


@pytest.mark.parametrize(("size", "context", "width"), [(2, 0, 64), (36, 0, 288), (100, 0, 512),
                                                        (1, 3, 128), (1, 0, 0)])  # fmt: skip
def test_widths_follow_the_number_of_elements(size, context, width):
    """Every conditional that sees something has its share of the units, from the second on."""
    net = Autoregressive(size, Spline(3), context=context).conditioner
    assert len(net.enter.bias) == width
    counts = torch.tensor(net.starts).diff()
    assert counts.sum() == width
    used = counts if context else counts[1:]
    assert not len(used) or used.max() - used.min() <= 1


@pytest.mark.parametrize(("size", "context"), [(1, 2), (4, 0), (4, 2)])
def test_the_inverse_in_steps_has_the_gradients_of_the_inverse(size, context):
    made, y = layer(size, context), points(size, 10).requires_grad_()
    x = made.inverse(y)
    torch.testing.assert_close(made(x), y, rtol=1e-9, atol=1e-9)
    J = torch.linalg.inv(reference.jacobian(made, x))
    torch.testing.assert_close(reference.jacobian(made.inverse, y), J, rtol=1e-7, atol=1e-7)


def test_one_element_evaluates_its_network_once_a_context(monkeypatch):
    made, rows = layer(1, 2), []
    plain = made.conditioner.forward
    monkeypatch.setattr(
        made.conditioner, "forward", lambda x, c: rows.append(len(x)) or plain(x, c)
    )
    x = points(1, 5000)
    torch.testing.assert_close(made.inverse(made(x)), x, rtol=1e-5, atol=1e-5)
    assert set(rows) == {5}
    assert made(x[:0]).shape == (0, 1)


@pytest.mark.parametrize("transform", [Spline(3), ScaleShift(7.0)])
@pytest.mark.parametrize("value", [3e38, -3e38, torch.inf])
def test_extreme_elements_give_no_nan(transform, value):
    made = layer(transform=transform).float()
    x = points().float()
    x[:, 1] = value
    y, log_det = made.forward_and_log_det(x)
    assert not y.isnan().any() and log_det.isfinite().all()
