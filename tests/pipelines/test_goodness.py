"""Distances of samples, beside SciPy's, beside the truth, and their false alarms."""

import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist

from ebflow.randomness import generator
from pipelines.density import fit
from tests.library.conftest import double_precision  # noqa: F401


def drawn(n, columns, *path):
    return torch.randn(n, columns, generator=generator(0, *path), dtype=torch.float64)


def permuted():
    return generator(0, "permutations")


def test_columns_have_scipys_distances_ties_included():
    x, y = drawn(90, 3, "x"), drawn(70, 3, "y")
    x[:, 1], y[:, 1] = x[:, 1].round(), y[:, 1].round()
    x[:, 2], y[:, 2] = 0, (y[:, 2] > 0).double()
    expected = [stats.ks_2samp(x[:, k].numpy(), y[:, k].numpy()).statistic for k in range(3)]
    found = fit.compared(fit.columns, x, y, permuted())
    torch.testing.assert_close(found.values, torch.tensor(expected, dtype=torch.float64))
    assert found.largest == max(expected)


def test_rows_have_the_energy_distance():
    x, y = drawn(40, 4, "x") * 3 + 1, drawn(50, 4, "y")
    scale = torch.cat([x, y]).std(0)
    one, two = (x / scale).numpy(), (y / scale).numpy()
    expected = 2 * cdist(one, two).mean() - cdist(one, one).mean() - cdist(two, two).mean()
    found = fit.compared(fit.rows, x, y, permuted())
    assert found.largest == pytest.approx(expected, rel=1e-9)
    assert found.largest > found.bound and found.p_value == 0.01


@pytest.mark.parametrize("distances", [fit.columns, fit.rows])
def test_equal_laws_are_told_apart_once_in_twenty(distances):
    """Of 100 true nulls, more than 13 beyond the bound have probability 0.0005."""
    alarms = 0
    for seed in range(100):
        x, y = drawn(30, 3, "x", seed), drawn(40, 3, "y", seed)
        found = fit.compared(distances, x, y, generator(seed, "permutations"))
        alarms += found.largest > found.bound
    assert alarms <= 13


def test_the_same_permutations_give_the_same_numbers():
    x, y = drawn(30, 3, "x"), drawn(40, 3, "y")
    one, two = (fit.compared(fit.columns, x, y, permuted()) for _ in range(2))
    assert (one.bound, one.p_value) == (two.bound, two.p_value)


def test_latents_of_a_true_flow_have_a_uniform_transform():
    u = drawn(500, 6, "u").view(500, 2, 3)
    found = fit.radii(u)
    expected = stats.chi2(6).cdf(u.flatten(1).square().sum(1).numpy())
    torch.testing.assert_close(found, torch.from_numpy(expected))
    assert fit.uniform(found).p_value > 0.01
    assert fit.uniform(fit.radii(1.2 * u)).p_value < 1e-6
