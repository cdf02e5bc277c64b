"""The stage that scores imputations of removed entries, and the imputers."""

import importlib.util

import numpy as np
import pytest

from pipelines.paper import fill
from pipelines.paper.config import PATTERNS, RivalConfig
from pipelines.paper.jobs import MISSING


def table(rows=400):
    """Two columns, each the other but for noise, and a category that says which sign they have."""
    noise = np.random.default_rng(0)
    side = noise.integers(0, 2, rows)
    x = (2 * side - 1) * 2 + noise.normal(size=rows)
    return np.stack([x, x + 0.3 * noise.normal(size=rows), side], 1)


NUMERIC = np.array([True, True, False])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_entries_are_removed_as_the_pattern_says(pattern):
    x = np.concatenate([table(4000)[:, :2], table(4000)], 1)
    removed = fill.chosen(
        RivalConfig(rival="mean", pattern=pattern), x, np.array([1, 1, 1, 1, 0], bool)
    )
    assert not removed[:, 4].any()
    above = x[:, 0] > np.median(x[:, 0])
    shares = removed[above, 0].mean(), removed[~above, 0].mean()
    expected = {"mcar20": (0.2, 0.2), "mcar40": (0.4, 0.4), "mnar": (0.35, 0.05)}
    assert shares == pytest.approx(expected[pattern], abs=0.04)  # 3.6 standard errors


def test_no_row_loses_everything():
    x = table()[:, :1]
    assert not fill.chosen(RivalConfig(rival="mean", pattern="mcar20"), x, np.array([True])).any()


def test_scores_of_known_imputations():
    """Column ranges 4 and 2; the first copy of a row, or the second, is exact."""
    x = np.array([[0.0, 1.0], [4.0, 1.0], [2.0, 3.0]])
    removed = np.array([[True, True], [True, False], [False, False]])
    errors = np.zeros((2, 3, 2))
    errors[0, 0] = [1.0, 0.5]
    errors[1, 1, 0] = -2.0
    found = fill.scores(x, x + errors, removed)
    assert found["study/min_mae"] == 0
    assert found["study/avg_mae"] == pytest.approx((1 / 4 + 0.5 / 2 + 2 / 4) / 2 / 3)
    assert found["study/coverage"] == 1
    point = fill.scores(x, x[None] + errors[:1], removed)
    spread = x.std(0)
    assert point["study/crps"] == pytest.approx((1 / spread[0] + 0.5 / spread[1]) / 3)


def test_crps_and_coverage_of_exact_samples():
    """The CRPS of N(0, 1) by its own samples has the mean 1/√π; 19 samples cover 18 of 20."""
    noise = np.random.default_rng(1)
    draws, y = noise.normal(size=(19, 20_000)), noise.normal(size=20_000)
    assert fill.crps(draws, y).mean() == pytest.approx(np.pi**-0.5, abs=0.015)
    assert fill.covered(draws, y).mean() == pytest.approx(0.9, abs=0.01)


SLOW = ("ebflow", "MissForest")


@pytest.mark.parametrize(
    "rival", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in MISSING.rivals]
)
def test_imputers_complete_rows_and_keep_what_is_observed(rival, monkeypatch):
    if rival == "miceforest" and importlib.util.find_spec(rival) is None:
        pytest.skip("miceforest is not installed")
    for name, count in {"COPIES": 3, "ROUNDS": 2, "TREES": 10, "WARM_UP": 1}.items():
        monkeypatch.setattr(fill, name, count)
    x, config = table(200), RivalConfig(rival=rival, pattern="mcar20", steps=100)
    removed = fill.chosen(config, x, NUMERIC)
    draws = fill.IMPUTERS[rival](np.where(removed, np.nan, x), config)
    assert draws.shape[1:] == x.shape and np.isfinite(draws).all()
    np.testing.assert_allclose(
        draws[:, ~removed], x[~removed].repeat(len(draws)).reshape(-1, len(draws)).T, atol=1e-5
    )
    error = fill.scores(x, draws, removed)["study/rmse"]
    assert error < 1.3 if rival == "mean" else error < 0.9


def test_crps_is_that_of_its_definition():
    samples = np.random.default_rng(0).normal(size=(5, 3, 2))
    apart = np.abs(samples[:, None] - samples[None]).sum((0, 1)) / (5 * 4)
    found = fill.crps(samples, np.zeros((3, 2)))
    np.testing.assert_allclose(found, np.abs(samples).mean(0) - apart / 2)
