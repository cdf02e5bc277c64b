"""Anomalies by the command: which rows, and in which words."""

import re
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from .conftest import people, trained


@pytest.fixture(scope="module")
def table():
    """New people: one too heavy for the height, one in another unit, one of another country."""
    found = people(200, seed=5).to_pandas().assign(country="DE")
    found.loc[[3, 9], "weight"] = None
    found.loc[7, "weight"], found.loc[11, "height"], found.loc[20, "country"] = 200.0, 171.0, "FR"
    return found


@pytest.fixture(scope="module")
def abroad(tmp_path_factory):
    """A model of a table with a constant column."""
    rows = people(1_000)
    return trained(
        tmp_path_factory.mktemp("abroad"), rows.append_column("country", [["DE"] * 1000])
    )


def detected(ebflow, model, data, folder, *more):
    """Runs the command; returns the anomalies by row."""
    ebflow("detect", model, data, "--output", folder / "found.csv", *more).quiet()
    return pyarrow.csv.read_csv(folder / "found.csv").to_pandas().set_index("row")


def test_anomalies_are_printed_with_reasons(ebflow, abroad, table, tmp_path):
    table.to_csv(tmp_path / "new.csv", index=False)
    with warnings.catch_warnings(record=True) as warned:
        result = ebflow("detect", abroad, tmp_path / "new.csv", "--alpha", "0.005").quiet()
    assert not warned, (result, warned)
    text = "\n".join(result.out)
    assert not re.search(r"\.\d{6}", text)
    assert "\nrow 7: p = 0.004, score " in text and "  weight = 200: expected " in text
    assert "\n  country = FR: expected DE, p = 0" in text
    missing = "  weight is missing: expected a value, as all compared training rows have"
    assert text.count(missing) == 2 and "\nrow 3: p = 0.004, score -1e+06" in text
    assert "\nrow 11: " in text and "  height = 171: expected " in text


def test_anomalies_are_written(ebflow, abroad, table, tmp_path):
    table.to_parquet(tmp_path / "new.parquet")
    found = detected(ebflow, abroad, tmp_path / "new.parquet", tmp_path)
    assert {7, 11, 20} <= set(found.index) and len(found) < 20
    assert (found["p_value"] <= 0.01).all() and found["p_value"].is_monotonic_increasing


def test_only_values_outside_known_bounds_are_impossible(ebflow, tmp_path):
    (tmp_path / "model").mkdir()
    bounds = {0: (1.0, 2.5), 2: (0.0, 40.0)}
    model = trained(tmp_path / "model", people(1_000), bounds=bounds)
    new = people(300, seed=5).to_pandas()
    new.loc[3, "height"], new.loc[4, "height"], new.loc[5, "count"] = 2.6, 0.9, 41
    new.loc[6, ["height", "weight"]] = 0.9, None
    new.loc[7, "weight"] = None
    new.to_parquet(tmp_path / "new.parquet")
    found = detected(ebflow, model, tmp_path / "new.parquet", tmp_path)
    assert {*found.index[found["score"] == -np.inf]} == {3, 4, 5, 6} and len(found) < 20


def test_a_column_that_is_not_modelled_may_lack_values_as_in_training(ebflow, tmp_path):
    rows = people(1_000)
    unit = pa.array(["EUR" if k % 10 else None for k in range(1_000)])
    (tmp_path / "model").mkdir()
    model = trained(tmp_path / "model", rows.append_column("unit", unit))
    new = rows.slice(0, 200).append_column("unit", pa.nulls(200, pa.string()))
    pq.write_table(new, tmp_path / "new.parquet")
    assert len(detected(ebflow, model, tmp_path / "new.parquet", tmp_path)) < 20


def test_rows_of_a_conditional_flow_are_compared_with_their_contexts(
    ebflow, conditional, grouped_file, tmp_path
):
    rows = pq.read_table(grouped_file).to_pandas()
    rows.loc[5, "height"], rows.loc[8, "group"] = 2.6, "light"
    rows.loc[8, ["height", "weight"]] = 1.95, 99.0
    rows.to_csv(tmp_path / "new.csv", index=False)
    found = detected(ebflow, conditional, tmp_path / "new.csv", tmp_path)
    assert {5, 8} <= set(found.index) and len(found) < 40
    assert found.loc[5, "reasons"].startswith("height = 2.6: expected ")


def test_a_first_missing_value_is_reported_by_few_training_rows(ebflow, tmp_path):
    model = trained(tmp_path, people(560))  # 400 of them are test rows
    new = people(200, seed=5).to_pandas()
    new.loc[3, "weight"] = None
    new.to_parquet(tmp_path / "new.parquet")
    result = ebflow("detect", model, tmp_path / "new.parquet", "--output", tmp_path / "f.csv")
    assert result.code == 0 and "--alpha is 0.0" in result.text, result
    assert 3 in pyarrow.csv.read_csv(tmp_path / "f.csv").to_pandas()["row"].tolist()


def test_rows_that_only_the_density_finds(ebflow, tmp_path):
    def table(seed):
        random = np.random.default_rng(seed)
        grade, x = random.integers(0, 24, 3_000), random.normal(size=(3, 3_000))
        names = {"grade": [f"g{k // 6}" for k in grade], "part": [f"p{k}" for k in grade]}
        return pa.table(names | {f"x{k}": column for k, column in enumerate(x)})

    run, new = trained(tmp_path, table(0)), table(1).to_pandas()
    new.loc[7, ["grade", "part"]] = "g0", "p20"
    new.to_csv(tmp_path / "new.csv", index=False)
    found = detected(ebflow, run, tmp_path / "new.csv", tmp_path)
    assert found.loc[7, "p_value"] == 2 / 401 and len(found) < 60


def test_anomalous_images_have_no_reasons(ebflow, digits, tmp_path):
    run = digits.root / "runs" / "density" / "digits"
    found = detected(ebflow, run, "digits", tmp_path, "--alpha", "0.02")
    assert 5 <= len(found) <= 100 and found["reasons"].isna().all()


def test_scores_of_incomplete_rows_have_errors(ebflow, abroad, table, tmp_path):
    table.to_parquet(tmp_path / "new.parquet")
    ebflow("score", abroad, tmp_path / "new.parquet", "--output", tmp_path / "s.parquet").quiet()
    found = pq.read_table(tmp_path / "s.parquet").to_pandas()
    assert set(found.index[found["log_prob_error"] > 0]) == {3, 9}
    assert set(found.index[found["p_value_test"].isna()]) == {3, 9}


def test_scores_of_rows_that_differ_from_constants_are_the_least(ebflow, abroad, tmp_path):
    rows = people(20, seed=6).to_pandas().assign(country="DE")
    rows.loc[[4, 9], "country"], rows.loc[9, "weight"] = "FR", None
    rows.to_csv(tmp_path / "new.csv", index=False)
    result = ebflow("score", abroad, tmp_path / "new.csv", "--output", tmp_path / "s.parquet")
    assert result.code == 0 and "log p = −∞    2 rows" in result.text
    assert re.search(r"mean log p    -[\d.]+ nats, of the other 18 rows", result.text)
    assert "not used" not in result.text  # the country is compared with the constant
    found = pq.read_table(tmp_path / "s.parquet").to_pandas()
    assert list(found.index[found["log_prob"] == -float("inf")]) == [4, 9]
    assert (found.loc[[4, 9], ["log_prob_error", "rank"]] == 0).all(axis=None)
    assert found.loc[[4, 9], "p_value_test"].tolist() == [1 / 401, 1 / 401]


@pytest.mark.parametrize(("change", "line"), [
    (lambda t: t.head(0), "new.csv: found 0 rows, expected some"),
    (lambda t: t.assign(height=1e200),
        "new.csv, column 'height', row 0: found 1e+200, expected a number of"),
])  # fmt: skip
def test_files_that_cannot_be_compared_are_named(ebflow, abroad, table, tmp_path, change, line):
    change(table).to_csv(tmp_path / "new.csv", index=False)
    assert line in ebflow("detect", abroad, tmp_path / "new.csv").refusal


@pytest.mark.parametrize("words", [["--alpha", "2"], ["--output", "found.txt"]])
def test_bad_options_are_named(ebflow, abroad, table, tmp_path, words):
    table.to_csv(tmp_path / "new.csv", index=False)
    result = ebflow("detect", abroad, tmp_path / "new.csv", *words)
    assert result.code == 2 and words[0] in result.err[-1]


def test_missing_values_are_no_anomaly_if_training_rows_lack_some(ebflow, tmp_path):
    rows = people(1_000).to_pandas()
    rows.loc[::9, "weight"] = None
    gaps = pa.Table.from_pandas(rows, preserve_index=False)
    run = trained(tmp_path, gaps, missing="impute")
    new = people(100, seed=5).to_pandas()
    new.loc[[3, 9], "weight"], new.loc[4, "height"] = None, None
    new.to_csv(tmp_path / "new.csv", index=False)
    found = detected(ebflow, run, tmp_path / "new.csv", tmp_path)
    assert not {3, 9} & set(found.index)
    assert found.loc[4, "reasons"].startswith("height is missing: expected a value")


def test_rows_without_names_are_compared_with_their_contexts(ebflow, tmp_path):
    def table(seed):
        x = np.random.default_rng(seed).normal(size=(600, 3))
        c = np.where(x[:, 0] > 0, "up", "down")
        return pa.table({"v": pa.array([*x], pa.list_(pa.float64(), 3)), "c": c})

    run = trained(tmp_path, table(0), context=["c"])
    odd = table(1).slice(0, 50).to_pydict()
    odd["v"][7], odd["c"][7] = [2.5, 0.0, 0.0], "down"
    odd["v"][9] = [9.0, 0.0, 0.0]
    pq.write_table(pa.table(odd, table(1).schema), tmp_path / "new.parquet")
    found = detected(ebflow, run, tmp_path / "new.parquet", tmp_path, "--alpha", "0.05")
    assert {7, 9} <= set(found.index) and len(found) < 20


def test_files_without_a_constant_column_have_no_anomaly_for_it(ebflow, abroad, tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    pq.write_table(people(60, seed=7), folder / "a.parquet")
    rows = people(60, seed=8)
    pq.write_table(rows.append_column("country", [["DE"] * 60]), folder / "b.parquet")
    assert len(detected(ebflow, abroad, folder, tmp_path)) < 15
