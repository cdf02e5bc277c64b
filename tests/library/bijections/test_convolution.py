"""Convolutions against matrices written out entry by entry; 1×1; elimination by strips."""

import itertools
import math

import pytest
import torch

from ebflow.bijections import Convolution
from ebflow.bijections.convolution import Elimination

from .. import reference
from .cases import convolution, kernel, seeded

CLOSE = dict(rtol=1e-10, atol=1e-10)
SHAPES = [(1, (3, 4), 3), (2, (4, 3), 3), (3, (2, 2), 3), (1, (5, 4), 5), (2, (3, 5), 1)]
shapes = pytest.mark.parametrize(("channels", "size", "side"), SHAPES)


def by_hand(weight, size):
    """Returns J with shape (D, D), for events flattened as (C, H, W), one entry at a time."""
    channels, _, side, _ = weight.shape
    height, width = size
    matrix = torch.zeros(channels, height, width, channels, height, width)
    for out, inn, row, col in itertools.product(
        range(channels), range(channels), range(height), range(width)
    ):
        for a, b in itertools.product(range(side), range(side)):
            r, c = row + a - side // 2, col + b - side // 2
            if 0 <= r < height and 0 <= c < width:
                matrix[out, row, col, inn, r, c] += weight[out, inn, a, b]
    return matrix.view(channels * height * width, -1)


def expected(layer):
    return by_hand(layer.weight.detach(), layer.event_shape[1:])


@shapes
def test_matrix_is_the_one_by_hand(channels, size, side):
    layer, shape = convolution(channels, size, side)
    x = torch.randn(2, *shape, generator=seeded())
    J = reference.jacobian(layer, x)[0]
    torch.testing.assert_close(J, expected(layer), **CLOSE)


@shapes
@pytest.mark.parametrize("gradient", [True, False])
def test_log_det_and_inverse_are_those_by_hand(channels, size, side, gradient):
    layer, shape = convolution(channels, size, side)
    J = expected(layer)
    y = torch.randn(3, *shape, generator=seeded(1))
    flat = y.flatten(1) - layer.bias.repeat_interleave(math.prod(size)).detach()
    with torch.set_grad_enabled(gradient):
        torch.testing.assert_close(layer.log_det(), torch.linalg.slogdet(J)[1], **CLOSE)
        torch.testing.assert_close(
            layer.inverse(y).flatten(1), torch.linalg.solve(J, flat.mT).mT, **CLOSE
        )


def test_log_dets_ask_for_no_larger_determinant_than_told(monkeypatch):
    """A strip of rows."""
    found, plain = [], torch.linalg.slogdet
    monkeypatch.setattr(torch.linalg, "slogdet", lambda a: found.append(a.shape) or plain(a))
    convolution(3, (4, 6))[0].log_det()
    assert found == 4 * [(18, 18)]


def test_a_kernel_that_needs_rows_exchanged_between_strips():
    """The pixels above and below, and not the one between: the first pivot is singular."""
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 0, 1], weight[0, 0, 2, 1] = 1.0, 2.0
    layer, y = Convolution(weight, None, (4, 3)), torch.randn(2, 1, 4, 3, generator=seeded())
    log_det = torch.linalg.slogdet(expected(layer))[1]
    torch.testing.assert_close(layer.log_det(), log_det, **CLOSE)
    with torch.no_grad():
        torch.testing.assert_close(layer.log_det(), log_det, **CLOSE)
        torch.testing.assert_close(layer(layer.inverse(y)), y, **CLOSE)


def test_second_derivatives_are_those_of_differences():
    layer, shape = convolution(2, (3, 3))
    x = torch.randn(2, *shape, generator=seeded(), requires_grad=True)
    weight = layer.weight.detach().clone().requires_grad_()
    for act in (layer.act, layer.adjoint):
        assert torch.autograd.gradgradcheck(act, (x, weight))


@pytest.mark.parametrize("side", [1, 3])
def test_single_precision(side):
    layer, shape = convolution(2, (4, 4), side)
    x = torch.randn(3, *shape, generator=seeded())
    y, log_det = layer(x), layer.log_det()
    single = layer.float()
    close = dict(rtol=1e-4, atol=1e-4, check_dtype=False)
    with torch.no_grad():
        assert single.log_det().dtype == torch.float32
        torch.testing.assert_close(single.log_det(), log_det, **close)
        assert single.inverse(y.float()).dtype == torch.float32
        torch.testing.assert_close(single.inverse(y.float()), x, **close)
    torch.testing.assert_close(single.log_det(), log_det, **close)
    single.log_det().backward()
    assert single.weight.grad.isfinite().all()


def test_a_singular_kernel_has_no_log_density():
    layer = Convolution(torch.zeros(2, 2, 3, 3), None, (2, 2))
    with torch.no_grad():
        assert layer.log_det() == -torch.inf


REFUSED = {
    "weight: found shape": [
        dict(weight=torch.ones(2, 2, 4, 4)),
        dict(weight=torch.ones(2, 3, 3, 3)),
        dict(weight=torch.ones(2, 2, 3, 5)),
        dict(weight=torch.ones(2, 2)),
    ],
    "size: found": [dict(size=(4,))],
}


@pytest.mark.parametrize(
    ("message", "options"), [(m, o) for m, many in REFUSED.items() for o in many]
)
def test_what_is_no_convolution_is_refused(message, options):
    options = {"size": (4, 4), **options}
    weight = options.pop("weight", kernel(2, options.pop("side", 3)))
    with pytest.raises(ValueError, match=message):
        Convolution(weight, None, **options)


sizes = pytest.mark.parametrize(("side", "size"), [(3, 12), (3, 10), (4, 5), (1, 6)])


def strips(side, dominance=3.0):
    """Returns [[A, U], [L, A]]."""
    a, upper, lower = torch.randn(3, side, side, generator=seeded())
    a = a + dominance * torch.eye(side)
    return torch.cat((torch.cat((a, upper), 1), torch.cat((lower, a), 1)))


def whole(corner, size):
    """Returns J, block by block."""
    side = len(corner) // 2
    count = -(-size // side)
    found = torch.zeros(count * side, count * side)
    for k in range(count):
        reach = slice(k * side, min(k + 2, count) * side)
        found[reach, reach] = corner[: reach.stop - reach.start, : reach.stop - reach.start]
    return found[:size, :size]


@sizes
def test_log_det_and_its_gradient(side, size):
    corner = strips(side).requires_grad_()
    found, plain = Elimination(corner, size).log_det(), torch.linalg.slogdet(whole(corner, size))
    torch.testing.assert_close(found, plain[1], **CLOSE)
    gradients = [torch.autograd.grad(value, corner)[0] for value in (found, plain[1])]
    torch.testing.assert_close(*gradients, **CLOSE)


def test_two_threads_find_the_log_det_of_one():
    corner = strips(200, dominance=50.0)
    expected = Elimination(corner, 800).log_det()
    torch.set_num_threads(2)
    torch.testing.assert_close(Elimination(corner, 800).log_det(), expected, **CLOSE)


@sizes
def test_solutions(side, size):
    corner, z = strips(side), torch.randn(size, 4, generator=seeded(1))
    found = Elimination(corner, size).solve(z)
    torch.testing.assert_close(whole(corner, size) @ found, z, **CLOSE)


@pytest.mark.parametrize("least", [0.0, 1e-10])
def test_a_pivot_that_is_nearly_singular_is_told(least):
    assert Elimination(strips(3), 9).accurate
    corner = strips(3)
    corner[:3, :3] = corner[3:, 3:] = torch.tensor([1.0, 1.0, least]).diag()
    assert not Elimination(corner, 9).accurate
