import numpy as np
import pytest

from ebflow.discrete import column_cells


def test_no_sample_is_negative_if_no_value_is():
    x = np.random.default_rng(0).exponential(size=500)
    assert column_cells(x).least == 0.0
    assert column_cells(x - 1).least == -np.inf


@pytest.mark.parametrize(("rows", "rare"), [(100, 1), (100, 2), (300, 2), (1000, 2)])
def test_a_level_may_be_rare(rows, rare):
    """Standardized levels on no grid, one of them in a row or two."""
    x = np.r_[np.random.default_rng(0).choice([0, 0.31, 0.737], rows - rare), [2.0] * rare]
    x = (x - x.mean()) / x.std()
    assert column_cells(x).levels == np.unique(x).tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("factor", "offset"), [(1 / 12, 0.0), (-0.0372, 3.21), (1e3 / 7, 0.1)])
def test_a_grid_has_any_unit(factor, offset, dtype):
    counts = np.random.default_rng(0).integers(10, 500, 400)
    x = (factor * counts + offset).astype(dtype).astype(float)
    found = column_cells(x)
    assert found.step in (0, pytest.approx(abs(factor))) and not found.atoms
    if not found.step:
        assert np.diff(found.levels) == pytest.approx(abs(factor), rel=1e-3)
        assert set(x) <= set(found.levels)


def test_a_few_common_values_of_a_continuous_column_are_no_atoms():
    values = np.random.default_rng(0).normal(size=150)
    x = np.repeat(values, np.random.default_rng(1).integers(1, 6, 150))
    assert not column_cells(x).knots


def test_a_wide_range_of_integers_takes_no_memory():
    x = np.random.default_rng(0).integers(0, int(1e15), 2000).astype(float)
    assert column_cells(x, exact=True).step == 1


def test_values_beside_an_atom_are_no_levels():
    x = np.r_[np.zeros(995), np.random.default_rng(0).lognormal(size=5)]
    assert column_cells(x).atoms == [0.0] and not column_cells(x).levels
