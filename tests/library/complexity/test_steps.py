"""The instance on which every empirical minimizer fails."""

import pytest
import torch

from ebflow.complexity.classes import easy_samples
from ebflow.complexity.instances import HALF
from ebflow.complexity.steps import minimizer, step, step_height, tail
from ebflow.randomness import generator


def test_the_minimizer_has_the_least_sum_of_squares():
    sizes = (1, 3, 12, 40)
    chosen = []
    for seed in range(40):
        x, residual = (part[:, 0] for part in easy_samples(40, 1, generator=generator(seed)))
        found = minimizer(x, residual, sizes, height=2.0, at=0.5)
        g = step(x, 2.0, 0.5)
        rivals = torch.stack([-x, g - x, -g - x], 1)
        losses = (rivals - (residual - x)[:, None]).square().cumsum(0)
        assert found.tolist() == [int(losses[m - 1].argmin()) for m in sizes]
        chosen += found.tolist()
    assert set(chosen) == {0, 1, 2}


@pytest.mark.parametrize("at", [2.0, 3.5])
def test_the_error_of_a_step_is_that_of_its_height(at):
    """Within a fifth: the step is not quite sharp."""
    height = step_height(at, 1.0)
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-0.5 * x * x) / (2 * torch.pi) ** 0.5
    square = torch.trapezoid(density * step(x, height, at).square(), x)
    assert HALF * float(square) ** 0.5 == pytest.approx(1.0, rel=0.2)
    assert tail(0.0) == 0.5 and tail(2.0) == pytest.approx(0.02275, rel=1e-3)


@pytest.mark.parametrize("at", [3.0, 6.0])
def test_without_a_sample_beyond_the_step_the_truth_is_never_the_minimizer(at):
    """Even where g underflows at every sample."""
    for seed in range(50):
        x, residual = (part[:, 0] for part in easy_samples(20, 1, generator=generator(seed)))
        inside = x < at - 1.0
        sizes, height = [int(inside.sum())], step_height(at, 1.0)
        found = minimizer(x[inside], residual[inside], sizes, height=height, at=at)
        assert found.tolist() in ([1], [2])
