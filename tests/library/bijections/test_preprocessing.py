"""Uniform dequantisation."""

import pytest
import torch

from ebflow.bijections import Dequantise

from .cases import seeded

integer_types = pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int64, torch.float32, torch.float64]
)


def completed(x, levels=17, like=None, seed=0):
    like = torch.zeros(()) if like is None else like
    return Dequantise(levels).dequantise(x, like, seeded(seed))


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
    assert torch.equal(Dequantise(17).inverse(y), x.double())


def test_single_precision_never_reaches_the_next_level():
    """At 65535 a float32 has 1/128 between neighbours, and x + u would often round up to x + 1."""
    x = torch.full((1000, 100), 65534, dtype=torch.int32)
    y = completed(x, 65536, like=torch.zeros((), dtype=torch.float32))
    assert y.dtype == torch.float32
    assert torch.equal(Dequantise(65536).inverse(y), x.float())


def test_same_generator_same_noise():
    x = torch.randint(0, 17, (5, 3), generator=seeded(1))
    assert torch.equal(completed(x, seed=4), completed(x, seed=4))
    assert not torch.equal(completed(x, seed=4), completed(x, seed=5))


def test_completed_data_pass_unchanged():
    x = torch.rand(5, 3, generator=seeded()) * 16.9
    assert torch.equal(completed(x), x)


@pytest.mark.parametrize("value", [-1.0, 17.0, -1e-9, float("nan"), float("inf")])
def test_values_out_of_range_raise(value):
    with pytest.raises(ValueError, match=r"expected \[0, 17\)"):
        completed(torch.tensor([[1.0, value]]))


def test_inverse_clamps_to_the_levels():
    y = torch.tensor([[-0.2, 17.3, 16.5]])
    assert Dequantise(17).inverse(y).tolist() == [[0.0, 16.0, 16.0]]


@pytest.mark.parametrize("levels", [1, 0, -3])
def test_fewer_than_two_levels_are_refused(levels):
    with pytest.raises(ValueError, match="levels: found"):
        Dequantise(levels)
