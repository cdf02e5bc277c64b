"""Elimination by strips against the whole matrix."""

import pytest
import torch

from ebflow.bijections.convolution import Elimination

from .cases import seeded

CLOSE = dict(rtol=1e-10, atol=1e-10)
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
    found, plain = Elimination(corner, size).log_dets(), torch.linalg.slogdet(whole(corner, size))
    torch.testing.assert_close(found, plain[1], **CLOSE)
    gradients = [torch.autograd.grad(value, corner)[0] for value in (found, plain[1])]
    torch.testing.assert_close(*gradients, **CLOSE)


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
