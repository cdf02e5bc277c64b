"""The stage that scores conditional densities, and its predictors."""

import importlib.util

import numpy as np
import pytest
import scipy

from docs.measurements import predict
from docs.measurements.conditional import CONDITIONAL, EXPERIMENT
from docs.measurements.predict import LEVELS, Rows, Table
from pipelines.paper.config import PaperConfig, RivalConfig


def test_the_last_column_of_a_users_table_is_predicted():
    cell, *_ = EXPERIMENT.all_cells(PaperConfig(scale="smoke", sources=("wine",)))
    assert cell.data.columns == ("proline",) and "alcohol" in cell.data.context
    assert {*CONDITIONAL.rivals} == {*predict.PREDICTORS}


def rows(count, seed):
    """y is N(c₁, (0.2 + 0.6 |c₂|)²)."""
    noise = np.random.default_rng(seed)
    c = noise.normal(size=(count, 2))
    return Rows(c[:, 0] + (0.2 + 0.6 * np.abs(c[:, 1])) * noise.normal(size=count), c)


def truth(table):
    scale = 0.2 + 0.6 * np.abs(table.c[:, 1])
    return -scipy.stats.norm.logpdf(table.y, table.c[:, 0], scale).mean()


SLOW = ("ebflow", "boosted quantiles", "zuko NSF")


@pytest.mark.parametrize(
    "rival",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CONDITIONAL.rivals],
)
def test_predictors_are_near_a_distribution_that_is_known(rival, monkeypatch):
    if rival == "NGBoost" and importlib.util.find_spec("ngboost") is None:
        pytest.skip("ngboost is not installed")
    monkeypatch.setattr(predict, "TREES", 30)
    table = Table(rows(500, 1), rows(200, 2), rows(400, 3))
    config = RivalConfig(rival=rival, steps=120)
    log_probs, draws = predict.PREDICTORS[rival](table, config)
    assert (log_probs.shape, draws.shape) == ((400,), (predict.DRAWS, 400))
    found = predict.scores(table.test.y, log_probs, draws, seed=0)
    margin = 0.0 if rival == "boosted quantiles" else 0.1
    alone = -scipy.stats.norm.logpdf(table.test.y, 0, table.test.y.std()).mean()
    assert truth(table.test) < found["study/nll"] < alone - margin
    assert 0.7 < found["study/coverage"] < 1


def test_a_density_of_quantiles_integrates_to_one_and_has_them_as_quantiles():
    ends = scipy.stats.norm.ppf(LEVELS)[:, None]
    y = np.linspace(-8, 8, 40_001)
    wide = np.repeat(ends, len(y), 1)
    log_probs, _ = predict.from_quantiles(wide, y, np.full((1, len(y)), 0.5))
    assert np.trapezoid(np.exp(log_probs), y) == pytest.approx(1, abs=1e-3)
    u = np.array([[0.001], [0.01], [0.3], [0.995], [0.999]])
    values = predict.from_quantiles(ends, np.zeros(1), u)[1][:, 0]
    inside = (y[:, None] < values).T
    masses = [np.trapezoid(np.exp(log_probs) * part, y) for part in inside]
    assert masses == pytest.approx(u[:, 0], abs=1e-3)


def test_scores_of_the_truth_and_of_a_wrong_scale():
    """Kolmogorov's band has 95 % of the distances of the truth; a half as wide one leaves it."""
    noise = np.random.default_rng(4)
    y, draws = noise.normal(size=1000), noise.normal(size=(199, 1000))
    log_probs = scipy.stats.norm.logpdf(y)
    found = predict.scores(y, log_probs, draws, seed=0)
    assert found["study/nll"] == pytest.approx(0.5 + 0.5 * np.log(2 * np.pi), abs=0.06)
    assert found["study/pit"] < 1 and found["study/coverage"] == pytest.approx(0.9, abs=0.03)
    assert predict.scores(y, log_probs, draws / 2, seed=0)["study/pit"] > 2
