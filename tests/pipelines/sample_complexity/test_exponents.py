"""m* and exponents, on errors with known distributions."""

import math

import numpy as np
import pandas as pd
import pytest

from pipelines.reporting.claims import decide
from pipelines.sample_complexity import exponents
from pipelines.sample_complexity.config import DELTAS, ComplexityConfig
from pipelines.sample_complexity.exponents import (
    FRESH,
    NETWORKS,
    Exponent,
    Series,
    about_classes,
    about_networks,
    crossing,
    exponent,
    series,
    slope,
)
from pipelines.sample_complexity.far_mode import geometric
from pipelines.sample_complexity.minimizer import MINIMIZER
from pipelines.sample_complexity.random_classes import CLASS, closed_exponent

SIZES = (1, 2, 4, 8)
RADII = Series("R/σ", FRESH, "networks", "ratio", {"size": 1})


@pytest.mark.parametrize(
    "row, expected",
    [((2, 2, 0, 0), 2 * 2**0.5), ((0, 9, 0, 9), math.inf), ((0, 0, 0, 0), 1), ((0, 9, 5, 1), 8)],
)
def test_from_the_crossing_on_the_error_stays_below(row, expected):
    """Between two points the error is linear in log m: from 2 to 0 it is 1 half-way."""
    errors = np.tile(np.array(row, float), (3, 1))
    assert crossing(errors, SIZES, 1.0) == pytest.approx(expected)


def test_a_power_of_m_crosses_at_its_closed_form():
    """Errors of m^−½ on a grid in steps of two: within 4 %."""
    sizes = 2 ** np.arange(12)
    for epsilon in (0.3, 0.21, 0.1):
        found = crossing((sizes**-0.5)[None], sizes, epsilon)
        assert found == pytest.approx(epsilon**-2, rel=0.04)


def test_the_median_over_training_sets_decides():
    errors = np.array([[5.0, 0.0], [5.0, 0.0], [0.0, 0.0]])
    assert crossing(errors[1:][[0, 1, 1]], (1, 2), 1.0) == 1
    assert crossing(errors, (1, 2), 1.0) == pytest.approx(2**0.8)


def test_a_slope_is_least_squares():
    values, crossings = np.array([8.0, 16, 32, 64]), np.array([3.0, 20, 40, 400])
    expected = np.polyfit(np.log(values), np.log(crossings), 1)[0]
    assert slope(values, crossings) == pytest.approx(expected)
    both = slope(values, np.stack([crossings, values**2], 1))
    assert both == pytest.approx([expected, 2.0])


def far_mode_rows(ratios=(8, 16, 32, 64), trials=60, seed=0):
    """Rows of learners that err in mean square until they see a far sample of weight 2 (σ/R)²."""
    rng, parts = np.random.default_rng(seed), []
    for ratio in ratios:
        eta = 2 / ratio**2
        sizes = geometric(2, 8 / eta, 1.25)
        first = rng.geometric(eta, size=(trials, 1))
        parts.append(pd.DataFrame({
            "panel": "networks", "learner": FRESH, "ratio": float(ratio), "size": 1,
            "m": np.tile(sizes, trials), "seed": np.repeat(np.arange(trials), len(sizes)),
            "sigma_l2": np.where(first > np.array(sizes), 0.7, 0.0).reshape(-1),
            "sigma_d_0.1": np.tile(np.where(np.array(sizes) < 10, 0.7, 0.0), trials),
        }))  # fmt: skip
    return pd.concat(parts)


def test_a_mode_of_weight_r_to_the_minus_two_has_exponent_two_in_mean_square_alone(monkeypatch):
    """m* is the median of a geometric distribution: log 2 / η."""
    monkeypatch.setattr(exponents, "RESAMPLES", 50)
    rows = far_mode_rows(trials=1000)
    mean, quantile = (exponent(RADII, name, rows, seed=0) for name in ("m*_L2", "m*_D"))
    assert mean.slope.value == pytest.approx(2, abs=0.15)
    at, m = mean.crossings["at"].to_numpy(), mean.crossings["value"].to_numpy()
    assert m == pytest.approx(math.log(2) * at**2 / 2, rel=0.2)
    assert quantile.slope.interval() == pytest.approx((0, 0, 0), abs=1e-9)
    entry = mean.summary
    assert set(entry) >= {"quantity", "against", "learner", "slope", "low", "high", "points"}
    assert [point["at"] for point in entry["points"]] == [8, 16, 32, 64]
    again = exponent(RADII, "m*_L2", rows, seed=0)
    assert again.summary == entry


def test_the_interval_covers_as_often_as_it_says(monkeypatch):
    """40 studies; a binomial standard deviation of the count is 1.4, and 3 of it are allowed."""
    monkeypatch.setattr(exponents, "RESAMPLES", 100)
    hits = 0
    for seed in range(40):
        rows = far_mode_rows(trials=40, seed=seed)
        interval = exponent(RADII, "m*_L2", rows, seed=seed).slope.interval()
        hits += interval.low <= 2 <= interval.high
    assert hits >= 38 - 4


def test_values_that_do_not_cross_are_left_out_and_too_few_have_no_slope():
    rows = far_mode_rows((8, 16, 32))
    rows["sigma_l2"] = np.where(rows["ratio"] == 8, 1.0, 0.0)
    found = exponent(RADII, "m*_L2", rows, seed=0)
    assert found.crossings["value"][0] == math.inf and found.slope is None
    assert found.minus(exponent(RADII, "m*_D", rows, seed=0)) is None


def test_exponents_in_the_error_and_the_mass_use_the_same_rows():
    """Errors of 1/√(δ m) are below ε from m = 1/(δ ε²) on."""
    sizes = geometric(7, 30_000, 1.1)
    columns = {f"sigma_d_{d:g}": np.tile((d * np.array(sizes)) ** -0.5, 9) for d in DELTAS}
    rows = pd.DataFrame({
        "panel": "networks", "learner": FRESH, "ratio": 16.0, "size": 1,
        "m": np.tile(sizes, 9), "seed": np.repeat(np.arange(9), len(sizes)), "width": 32,
        "depth": 2,
        "sigma_l2": columns["sigma_d_0.1"], **columns,
    })  # fmt: skip
    found = series(ComplexityConfig(scale="cpu"))
    by_name = {one.against: one for one in found if one.learner == FRESH}
    for name, quantity, expected in (("1/ε", "m*_D", 2), ("1/ε", "m*_L2", 2), ("1/δ", "m*_D", 1)):
        found = exponent(by_name[name], quantity, rows, seed=0)
        assert found.slope.value == pytest.approx(expected, abs=0.1)


def made(quantity, learner, value_and_se):
    """Returns an exponent and its standard error, of two resamples of 24 training sets."""
    points = pd.DataFrame({"at": [8.0, 16.0, 32.0, 64.0], "value": 10.0, "low": 8.0, "high": 12.0})
    value, se = value_and_se or (math.nan, math.nan)
    away = se * (23 / 48) ** 0.5
    slopes = [value, value + away, value - away]
    one = Series("R/σ", learner, "networks", "ratio")
    return Exponent(one, quantity, points, np.array(slopes), 24)


@pytest.mark.parametrize("value_and_se, verdict", [
    ((0.0, 0.1), "holds"),
    ((1.0, 0.1), "does not hold"),
    ((0.1, 0.5), "not decided at this size"),
    (None, "not decided at this size"),
])  # fmt: skip
def test_an_exponent_is_judged_by_its_interval(value_and_se, verdict):
    pair = [made(quantity, FRESH, None) for quantity in ("m*_L2", "m*_D")]
    claim, *_ = decide(list(about_networks([made("m*_D", NETWORKS[0], value_and_se), *pair])))
    assert claim.verdict == verdict


@pytest.mark.parametrize(
    "mean, verdict", [(1.6, "holds"), (0.1, "does not hold"), (0.6, "not decided at this size")]
)
def test_exponents_of_both_errors_are_compared(mean, verdict):
    """Of the same resamples: apart, their standard errors of 0.2 would decide nothing."""
    pair = [made("m*_L2", FRESH, (mean, 0.3)), made("m*_D", FRESH, (-0.1, 0.2))]
    claims = decide(list(about_networks(pair)))
    assert len(claims) == 2 and claims[-1].verdict == verdict


def of_class(against, learner, slope_of):
    """Returns an exponent of 400 training sets with a standard error of 0.02."""
    points = pd.DataFrame({"at": [1.0, 2.0, 4.0], "value": 9.0, "low": 8.0, "high": 10.0})
    slopes = slope_of + 0.02 * np.array([0.0, *np.tile([1, -1], 50)])
    quantity = "m*_L2" if learner == MINIMIZER else "m*_D"
    return Exponent(Series(against, learner, "classes", "value"), quantity, points, slopes, 400)


@pytest.mark.parametrize("against, right, wrong", [
    ("log |H|", 1.4, 3.0), ("d", 0.1, 1.5), ("1/ε", 2.0, 1.0), ("1/δ", 1.0, 0.0), ("S", 2.0, 0.0),
])  # fmt: skip
def test_powers_of_classes_are_judged(against, right, wrong):
    learner = MINIMIZER if against == "S" else CLASS
    config = ComplexityConfig(scale="cpu")
    for power, verdict in ((right, "holds"), (wrong, "does not hold")):
        (claim,) = decide(list(about_classes(config, [of_class(against, learner, power)])))
        assert claim.verdict == verdict and claim.item == ("G6" if against == "S" else "G3")


def test_the_closed_exponent_of_many_hypotheses_falls_to_one():
    few, many, more = map(closed_exponent, ((10, 100), (10**4, 10**5), (10**9, 10**10)))
    assert few > many > more > 1
