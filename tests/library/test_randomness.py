"""Random numbers are a function of seed, purpose and step, and of nothing else."""

import pytest
import torch

from ebflow.randomness import generator, normal, rademacher, uniform

DRAWS = {"normal": normal, "uniform": uniform, "rademacher": rademacher}
draws = pytest.mark.parametrize("draw", DRAWS)
LIKE = torch.zeros((), dtype=torch.float64)


@draws
def test_same_path_same_numbers(draw):
    one, same = (DRAWS[draw]((5, 3), LIKE, generator(0, "a", 7)) for _ in range(2))
    assert torch.equal(one, same)
    for other in ((1, "a", 7), (0, "b", 7), (0, "a", 8), (0, "a"), (0, "a", "7")):
        assert not torch.equal(one, DRAWS[draw]((5, 3), LIKE, generator(*other)))


@draws
def test_global_state_is_neither_read_nor_written(draw):
    before = torch.random.get_rng_state()
    one = DRAWS[draw]((5, 3), LIKE, generator(0))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(123)
    assert torch.equal(one, DRAWS[draw]((5, 3), LIKE, generator(0)))


@draws
@pytest.mark.parametrize("world", [2, 3])
def test_shards_are_rows_of_the_whole(draw, world):
    whole = DRAWS[draw]((6, 3), LIKE, generator(0))
    rows = 6 // world
    parts = [DRAWS[draw]((rows, 3), LIKE, generator(0, shard=(r, world))) for r in range(world)]
    assert torch.equal(torch.cat(parts), whole)


@draws
def test_type_is_that_of_the_tensor(draw):
    single = torch.zeros((), dtype=torch.float32)
    assert DRAWS[draw]((2,), single, generator(0)).dtype == torch.float32


def test_signs_are_even():
    """A z-test of 10,000 signs at a false-alarm rate of 1e-4 (3.9 sigma)."""
    signs = rademacher((10_000,), LIKE, generator(0))
    assert set(signs.tolist()) == {-1.0, 1.0} and abs(float(signs.sum())) < 390
