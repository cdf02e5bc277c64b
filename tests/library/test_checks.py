"""Checks of synthetic rows: SDMetrics' numbers, and changes that each of them must find."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_wine

import ebflow
from ebflow import checks


def wine():
    """Two tables of 89 rows with numbers, a category, truth values, and missing values."""
    x, y = load_wine(return_X_y=True)
    table = pd.DataFrame(x[:, [0, 1, 4]], columns=["alcohol", "acid", "magnesium"])
    table["kind"], table["strong"] = np.array(["a", "b", "c"])[y], x[:, 0] > 13
    table.loc[::7, "acid"], table.loc[::11, "kind"] = np.nan, None
    real, synthetic = (table.iloc[k::2].reset_index(drop=True) for k in range(2))
    synthetic["magnesium"] += 5 * (synthetic["kind"] == "b")
    return real, synthetic


SHAPES = {
    "alcohol": 0.898876404494,
    "acid": 0.881578947368,
    "magnesium": 0.85393258427,
    "kind": 0.983487654321,
    "strong": 0.932584269663,
}
TRENDS = {
    "alcohol × acid": 0.896852135472,
    "alcohol × magnesium": 0.948082395066,
    "alcohol × kind": 0.662921348315,
    "alcohol × strong": 0.685393258427,
    "acid × magnesium": 0.968508434726,
    "acid × kind": 0.707865168539,
    "acid × strong": 0.741573033708,
    "magnesium × kind": 0.595505617978,
    "magnesium × strong": 0.629213483146,
    "kind × strong": 0.921348314607,
}


def test_shapes_and_trends_are_those_of_sdmetrics():
    """Recorded from SDMetrics 0.32, ``QualityReport`` with both thresholds at 0."""
    found = ebflow.check(*wine())
    assert found.shapes == pytest.approx(SHAPES, abs=1e-9)
    assert found.trends == pytest.approx(TRENDS, abs=1e-9)
    assert found["column shapes"] == pytest.approx(np.mean([*SHAPES.values()]), abs=1e-9)


def dependent(rows, seed):
    """Rows of three numbers and a category that depend on each other."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 3))
    x[:, 1] = x[:, 0] ** 2 + 0.1 * x[:, 1]
    table = pd.DataFrame(x, columns=list("abc"))
    return table.assign(sign=np.where(x[:, 0] > 0, "plus", "minus"))


@pytest.fixture(scope="module")
def tables():
    return [dependent(800, seed) for seed in range(3)]


def independent(table):
    random = np.random.default_rng(0)
    return table.apply(lambda column: random.permutation(column))


@pytest.mark.parametrize("booster", ["XGBoost", "HistGradientBoosting"])
def test_a_classifier_finds_what_shapes_do_not(tables, booster, monkeypatch):
    if booster == "XGBoost":
        pytest.importorskip("xgboost")
    monkeypatch.setattr(checks, "_booster", lambda: booster)
    real, other, _ = tables
    same, apart = ebflow.check(real, other), ebflow.check(real, independent(other))
    name = f"C2ST ({booster})"
    assert same[name] > 0.85 and apart[name] < 0.3
    assert apart["column shapes"] == pytest.approx(same["column shapes"], abs=1e-12)
    assert apart["pair trends"] < same["pair trends"] - 0.03


def test_copies_of_training_rows_are_found(tables):
    real, train, other = tables
    noisy = train.assign(a=train["a"] + 1e-3)
    copied = next(x for x in ebflow.check(real, noisy, train=train).lines if "nearer" in x.name)
    fresh = next(x for x in ebflow.check(real, other, train=train).lines if "nearer" in x.name)
    assert copied.value > 0.95 and abs(fresh.value - 0.5) < 0.05
    assert copied.note.startswith("½ ± 0.0")


def test_equal_rows_of_both_sets_count_half():
    rows = pd.DataFrame({"a": ["u", "v"] * 20, "b": ["x"] * 20 + ["y"] * 20})
    assert ebflow.check(rows, rows, train=rows)["nearer to a training row"] == 0.5


def test_a_column_is_predicted(tables):
    real, other, _ = tables
    random = np.random.default_rng(0)
    mixed = other.assign(sign=random.permutation(other["sign"]))
    name = "prediction of sign"
    line = next(x for x in ebflow.check(real, mixed).lines if x.name == name)
    assert line.value < 0.7 and line.real > 0.95
    assert ebflow.check(real, other)[name] > 0.95
    assert ebflow.check(real, other, target="b")["prediction of b"] > 0.75


def test_missing_values_of_real_rows_alone_are_no_difference(tables):
    real, other, _ = tables
    gaps = np.random.default_rng(0).random(len(real)) < 0.3
    found = ebflow.check(real.assign(a=real["a"].mask(gaps)), other)
    assert found.lines[0].value > 0.8


def test_the_table_and_the_numbers_are_alike(tables):
    found = ebflow.check(*tables[:2])
    assert found.to_dict()["lines"]["pair trends"]["value"] == found["pair trends"]
    assert f"{found['pair trends']:.3f}" in str(found)
    assert str(found) == str(ebflow.check(*tables[:2]))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda table: table.drop(columns="b"), {}, "synthetic: found no column 'b'"),
        (lambda table: table[:9], {}, "found 9 rows, expected 20"),
        (lambda table: table, {"target": "z"}, "target: found 'z', expected one of a, b, c, sign"),
    ],
)
def test_errors_say_what_is_wrong(tables, change, options, message):
    with pytest.raises(ValueError, match=message):
        ebflow.check(tables[0], change(tables[1]), **options)
