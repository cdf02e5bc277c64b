"""Random numbers are a function of seed, purpose, step and row, and of nothing else."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ebflow.randomness import (
    ContentGenerator,
    RowGenerator,
    generator,
    normal,
    rademacher,
    uniform,
)

from . import reference


class Hashed(RowGenerator):
    """Rows as on devices that are no CPU."""

    def _philox(self, rows, size, like):
        return self._hashed(rows, size, like)


DRAWS = {"normal": normal, "uniform": uniform, "rademacher": rademacher}
draws = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
KINDS = {"torch's": generator, "of rows": RowGenerator, "of rows, hashed": Hashed}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
of_rows = pytest.mark.parametrize("kind", [RowGenerator, Hashed])
types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
LIKE = torch.zeros((), dtype=torch.float64)


@draws
@kinds
def test_same_path_same_numbers(draw, kind):
    one, same = (draw((5, 3), LIKE, kind(0, "a", 7)) for _ in range(2))
    assert torch.equal(one, same)
    for other in ((1, "a", 7), (0, "b", 7), (0, "a", 8), (0, "a"), (0, "a", "7")):
        assert not torch.equal(one, draw((5, 3), LIKE, kind(*other)))


@draws
@kinds
def test_global_state_is_neither_read_nor_written(draw, kind):
    before = torch.random.get_rng_state()
    one = draw((5, 3), LIKE, kind(0))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(123)
    assert torch.equal(one, draw((5, 3), LIKE, kind(0)))


@draws
def test_without_a_generator_it_is_the_global_state(draw):
    found = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        found.append(draw((4,), LIKE, None))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@draws
@types
@of_rows
@pytest.mark.parametrize("event", [(), (1,), (3,), (4, 5), (9,)])
def test_rows_are_their_own_wherever_a_part_begins(draw, dtype, kind, event):
    """Of every draw: row i is the same in a part that begins at any row before it."""
    like, whole = torch.zeros((), dtype=dtype), kind(0, "a")
    expected = [draw((7, *event), like, whole) for _ in range(3)]
    for first in range(7):
        for rows in (1, 7 - first):
            part = kind(0, "a", first=first)
            for one in expected:
                found = draw((rows, *event), like, part)
                assert found.dtype == dtype
                assert torch.equal(found, one[first : first + rows])


@draws
@of_rows
def test_draws_of_one_generator_differ(draw, kind):
    rows = kind(0, "a")
    found = [draw((50, 4), LIKE, rows) for _ in range(3)]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert (found[one] != found[other]).any(1).double().mean() > 0.8
    shifted = [uniform((50, 4), LIKE, kind(0, "a", first=k)) for k in (0, 1)]
    assert torch.equal(shifted[0][1:], shifted[1][:-1])
    assert not (shifted[0] == shifted[1]).any()


@kinds
@types
def test_laws(kind, dtype):
    """Kolmogorov-Smirnov of 40,000 numbers against either law; false alarms 1e-4 each."""
    like = torch.zeros((), dtype=dtype)
    for draw, law in ((uniform, "uniform"), (normal, "norm")):
        x = draw((10_000, 4), like, kind(0, law)).double().flatten()
        assert x.isfinite().all()
        assert stats.kstest(x.numpy(), law).pvalue > 1e-4
    u = uniform((10_000, 4), like, kind(3))
    assert u.min() >= 0 and u.max() < 1


@kinds
def test_elements_of_rows_are_independent(kind):
    """z-scores of all correlations of 6 columns and of neighbouring rows; false alarms 1e-3."""
    x = normal((20_000, 6), LIKE, kind(0, "columns"))
    products = torch.cat([(x[:, :, None] * x[:, None]).flatten(1)[1:], x[1:] * x[:-1]], 1)
    expected = torch.cat([torch.eye(6).flatten(), torch.zeros(6)])
    z = (products.mean(0) - expected) / (products.std(0) / len(products) ** 0.5)
    assert z.abs().max() < reference.two_sided(1e-3, len(z))


def test_normal_numbers_are_finite_at_the_ends():
    """The first and the last cell of (−1, 1) are as far from 0 as each other; u is below 1."""

    class Ends(RowGenerator):
        def symmetric(self, shape, like):
            end = 1 - torch.finfo(like.dtype).eps / 2
            return torch.tensor([-end, end], dtype=like.dtype)

    for dtype in (torch.float32, torch.float64):
        like = torch.zeros((), dtype=dtype)
        low, high = normal((2,), like, Ends(0)).tolist()
        assert math.isfinite(low) and low == -high and high > 5
        low, high = uniform((2,), like, Ends(0)).tolist()
        assert low == 0 and 1 - torch.finfo(dtype).eps <= high < 1


@draws
def test_half_precision_is_drawn_in_single(draw):
    half = draw((6, 3), torch.zeros((), dtype=torch.bfloat16), RowGenerator(0))
    assert half.dtype == torch.bfloat16 and half.isfinite().all()


@of_rows
@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 24), (torch.float64, 53)])
def test_cells_are_as_many_as_the_types_digits_tell(kind, dtype, digits):
    found = kind(0).symmetric((1000, 4), torch.zeros((), dtype=dtype))
    cells = found * 2.0 ** (digits - 1)
    assert found.dtype == dtype and torch.equal(cells, cells.floor() + 0.5)
    assert 0.4 < (cells.floor() % 2).mean() < 0.6  # down to the last digit


def test_numbers_of_content_are_uniform_and_independent():
    """Of rows that differ little: KS and z-scores, false alarms 1e-4 and 1e-3."""
    x = torch.cartesian_prod(torch.arange(200), torch.arange(100)).double()
    u = torch.cat([ContentGenerator(0, k).uniform(x, LIKE) for k in range(3)], 1)
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-4
    z = (u - 0.5) * 12**0.5
    z = torch.cat([z[1:], z[:-1], z.roll(100, 0)[1:]], 1)  # neighbours in both columns
    products = (z.mT @ z / len(z)).triu(1)
    assert (products * len(z) ** 0.5).abs().max() < reference.two_sided(1e-3, 18 * 17 / 2)


@types
def test_numbers_of_content_depend_on_all_values_and_on_nothing_else(dtype):
    like, x = torch.zeros((), dtype=dtype), torch.randn(60, 3, generator=generator(0))
    u = ContentGenerator(5).uniform(x, like)
    assert u.dtype == dtype and torch.equal(u[7:9], ContentGenerator(5).uniform(x[7:9], like))
    assert torch.equal(u, ContentGenerator(5).uniform(x.double(), like))
    zeros = torch.zeros(1, 3)
    one, other = (ContentGenerator().uniform(t, like) for t in (zeros, -zeros))
    assert torch.equal(one, other)
    for another in (ContentGenerator(4), ContentGenerator(5, 1)):
        assert not (another.uniform(x, like) == u).any()
    for changed in (x.roll(1, 1), x + torch.tensor([0.0, 0.0, 1e-6])):
        assert not (ContentGenerator(5).uniform(changed, like) == u).any()


def test_no_rows():
    assert ContentGenerator().uniform(torch.zeros(0, 3), LIKE).shape == (0, 3)
    assert uniform((0, 3), torch.zeros(()), RowGenerator(0)).shape == (0, 3)
    assert uniform((0, 3), LIKE, RowGenerator(0)).shape == (0, 3)
    assert normal((0,), LIKE, RowGenerator(0)).shape == (0,)


def test_uniform_numbers_are_below_one_in_every_type():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        drawn = uniform((50_000, 4), torch.zeros((), dtype=dtype), RowGenerator(0))
        assert float(drawn.max()) < 1 and float(drawn.min()) >= 0


def test_the_seed_is_a_number_whatever_its_type():
    assert RowGenerator(np.int64(3), "a").key == RowGenerator(3, "a").key
