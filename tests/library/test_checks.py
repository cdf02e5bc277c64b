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
    "alcohol × acid": 0.896852135472, "alcohol × magnesium": 0.948082395066,
    "alcohol × kind": 0.662921348315, "alcohol × strong": 0.685393258427,
    "acid × magnesium": 0.968508434726, "acid × kind": 0.707865168539,
    "acid × strong": 0.741573033708, "magnesium × kind": 0.595505617978,
    "magnesium × strong": 0.629213483146, "kind × strong": 0.921348314607,
}  # fmt: skip


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


@pytest.mark.parametrize("booster", ["XGBoost", "HistGradientBoosting"])
def test_a_classifier_finds_what_shapes_do_not(tables, booster, monkeypatch):
    if booster == "XGBoost":
        pytest.importorskip("xgboost")
    monkeypatch.setattr(checks, "_booster", lambda: booster)
    real, other, _ = tables
    mixed = other.apply(np.random.default_rng(0).permutation)
    same, apart = ebflow.check(real, other), ebflow.check(real, mixed)
    name = f"C2ST ({booster})"
    assert same[name] > 0.85 and apart[name] < 0.3
    assert apart["column shapes"] == pytest.approx(same["column shapes"], abs=1e-12)
    assert apart["pair trends"] < same["pair trends"] - 0.03


def copies(real, synthetic, train):
    """Returns the figure of copies, and how far it may be from ½ by chance."""
    line = ebflow.check(real, synthetic, train=train).lines[-1]
    return line.value, float(line.note.split()[2])


def test_copies_of_a_large_training_set_are_found():
    real, train, other = (dependent(rows, rows) for rows in (300, 3000, 301))
    value, _ = copies(real, train, train)
    half = pd.concat([train[:150], other[:150]], ignore_index=True)
    mixed, error = copies(real, half, train)
    fresh, _ = copies(real, other, train)
    assert value == 1 and mixed > 0.5 + 1.5 * error and abs(fresh - 0.5) < error


def test_repeated_rows_are_no_copies():
    """Each level has more training rows than held-out ones, which is no sign of copies."""
    random = np.random.default_rng(0)
    real, train, other = (pd.DataFrame({"a": random.integers(0, 100, rows).astype(str)})
                          for rows in (60, 600, 300))  # fmt: skip
    value, error = copies(real, other, train)
    assert abs(value - 0.5) < error


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


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_collapsed_rows_have_low_scores(value):
    x = np.random.default_rng(0).normal(size=(200, 2))
    real, synthetic = (pd.DataFrame(rows, columns=["a", "b"]) for rows in np.split(x, 2))
    found = ebflow.check(real, synthetic.assign(b=value), train=real)
    assert found.trends == {"a × b": 0} and found["pair trends"] == 0
    expected = 0 if np.isnan(value) else pytest.approx(0.5, abs=0.15)
    assert found.shapes["a"] > 0.7 and found.shapes["b"] == expected
    assert np.isnan(found["prediction of b"]) == np.isnan(value)
    assert found.lines[0].value < 0.3 and "b" in str(found)


def test_lines_without_scores_are_left_out():
    """Both columns are never known together, so the pair has no correlation."""
    x = np.random.default_rng(0).normal(size=(200, 2))
    x[np.arange(200), np.arange(200) % 2] = np.nan
    real, synthetic = (pd.DataFrame(rows, columns=["a", "b"]) for rows in np.split(x, 2))
    assert [line.name for line in ebflow.check(real, synthetic).lines][1:] == [
        "column shapes", "prediction of b",
    ]  # fmt: skip


@pytest.mark.parametrize("booster", ["XGBoost", "HistGradientBoosting"])
def test_integers_far_from_zero_are_resolved(booster, monkeypatch):
    if booster == "XGBoost":
        pytest.importorskip("xgboost")
    monkeypatch.setattr(checks, "_booster", lambda: booster)
    a = np.random.default_rng(0).integers(0, 20, 400)
    real, moved = (pd.DataFrame({"a": 10**9 + x, "odd": a % 2 == 1}) for x in (a, a + 10))
    found = ebflow.check(real, moved)
    assert found[f"C2ST ({booster})"] < 0.5
    assert next(x for x in found.lines if "prediction" in x.name).real > 0.9


def test_both_figures_of_the_classifier_have_equal_numbers_of_rows(tables, monkeypatch):
    sizes, plain = [], checks._c2st
    monkeypatch.setattr(
        checks, "_c2st", lambda x, y, *a: sizes.append((len(x), len(y))) or plain(x, y, *a)
    )
    real, train, other = tables
    ebflow.check(real, other)
    ebflow.check(real, other, train=train)
    assert sizes == [(400, 400)] * 2 + [(800, 800)] * 2


def test_the_table_and_the_numbers_are_alike(tables):
    found = ebflow.check(*tables[:2])
    assert found.to_dict()["lines"]["pair trends"]["value"] == found["pair trends"]
    assert f"{found['pair trends']:.3f}" in str(found)
    assert str(found) == str(ebflow.check(*tables[:2]))


@pytest.mark.parametrize(("change", "options", "message"), [
    (lambda table: table.drop(columns="b"), {}, "synthetic: found no column b"),
    (lambda table: table[:9], {}, "found 9 rows, expected 20"),
    (lambda table: table, {"target": "z"}, "target: found 'z', expected one of a, b, c, sign"),
])  # fmt: skip
def test_errors_say_what_is_wrong(tables, change, options, message):
    with pytest.raises(ValueError, match=message):
        ebflow.check(tables[0], change(tables[1]), **options)
