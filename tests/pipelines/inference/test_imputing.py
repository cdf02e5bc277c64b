"""Imputations: entries that are there stay, others are drawn, and how well is told."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.inference.rows import ADDED

from .conftest import NAMES, grouped, people, trained

QUICK = ("--sweeps", 1, "--samples", 3)


@pytest.fixture(scope="module")
def holes(tmp_path_factory):
    """Twelve rows, of which one is complete and one is empty."""
    folder = tmp_path_factory.mktemp("holes")
    rows = people(12, seed=5).to_pandas()
    for k, name in enumerate(NAMES * 2):
        rows[name] = rows[name].astype(object)
        rows.loc[k, name] = None
    rows.loc[9, list(NAMES)] = None
    for name, kind in zip(NAMES, ("float32", "float64", "Int64", "boolean"), strict=True):
        rows[name] = rows[name].astype(kind)
    rows.to_parquet(folder / "holes.parquet")
    return folder / "holes.parquet"


def imputed(ebflow, model, data, output, *more):
    """Runs the command; returns its result and the table."""
    result = ebflow("impute", model, data, "--output", output, *QUICK, *more).quiet()
    return result, pq.read_table(output)


def test_what_is_there_stays_and_what_is_not_is_drawn(ebflow, model, holes, tmp_path):
    result, found = imputed(ebflow, model, holes, tmp_path / "s.parquet")
    source = pq.read_table(holes)
    assert (
        found.select(list(NAMES)).schema.types
        == pq.read_schema(model.parent / "people.parquet").types
    )
    rows, before = found.to_pandas(), source.to_pandas()
    assert len(rows) == 36 and rows["_sample"].tolist() == [0, 1, 2] * 12
    assert rows["_row"].tolist() == np.repeat(np.arange(12), 3).tolist()
    for name in NAMES:
        kept = before[name].notna()[rows["_row"]].to_numpy()
        expected = before[name][rows["_row"]].to_numpy()[kept].astype(float)
        np.testing.assert_array_equal(rows[name].to_numpy()[kept].astype(float), expected)
        assert rows[name].notna().all()
    assert "rows          12, 9 of which had missing values" in result.text
    values = rows.groupby("_row")["height"].nunique()
    assert ((values == 3) == before["height"].isna()).all() and values.isin([1, 3]).all()
    assert (rows["_effective"] != 1).tolist() == np.repeat(before.isna().any(axis=1), 3).tolist()


def test_contexts_stay_in_their_places(ebflow, conditional, tmp_path):
    rows = grouped(12, seed=5).to_pandas()
    rows.loc[3, "weight"] = np.nan
    rows.to_parquet(tmp_path / "holes.parquet")
    _, found = imputed(ebflow, conditional, tmp_path / "holes.parquet", tmp_path / "s.parquet")
    assert found.column_names[3:] == [*rows.columns]
    assert found["group"].to_pylist() == np.repeat(rows["group"].to_numpy(), 3).tolist()
    drawn = found.to_pandas().query("_row == 3")["weight"]
    assert drawn.notna().all() and drawn.nunique() == 3


def test_a_seed_decides_and_a_csv_with_empty_fields_gives_the_same(ebflow, model, holes, tmp_path):
    pd.read_parquet(holes).to_csv(tmp_path / "holes.csv", index=False)
    one, two, other = (
        imputed(ebflow, model, data, tmp_path / "s.parquet", "--seed", seed)[1]
        for data, seed in ((holes, 0), (tmp_path / "holes.csv", 0), (holes, 1))
    )
    assert one.num_rows == 36 and not one.equals(other)
    # A CSV has numbers of single precision with the digits that tell them apart.
    frames = one.to_pandas(), two.to_pandas()
    pd.testing.assert_frame_equal(*frames, rtol=1e-4, check_dtype=False)


def test_observed_values_stay_whatever_they_are(ebflow, tmp_path):
    """Also a constant's, a linear function's, an identifier's, and a level that is new."""

    def table(rows, seed):
        found = grouped(rows, seed).to_pandas().assign(country="DE")
        return found.assign(double=2 * found["count"], id=[f"P{k:05}" for k in range(rows)])

    model = trained(tmp_path, pa.Table.from_pandas(table(1_000, 0)))
    rows = table(12, 5)
    rows.loc[3, ["country", "group", "double"]] = "FR", "huge", -1
    rows.loc[[2, 3], "weight"] = np.nan
    rows.to_csv(tmp_path / "rows.csv", index=False)
    words = ("impute", model, tmp_path / "rows.csv", "--output", tmp_path / "s.csv")
    ebflow(*words, "--samples", "1", "--sweeps", "1").quiet()
    found = pd.read_csv(tmp_path / "s.csv").drop(columns=[*ADDED])
    assert found["weight"].notna().all()
    others = [name for name in rows if name != "weight"]
    pd.testing.assert_frame_equal(found[others], rows[others], check_dtype=False, rtol=1e-5)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("others", [0, 1])
def test_rows_without_a_density_are_a_line(ebflow, model, others, tmp_path):
    """Also if a block has no other incomplete row; scores of such rows have no warning."""
    rows = people(300, seed=5).to_pandas()
    rows.loc[3, "height"] = 1e30
    rows.loc[range(3, 4 + others), "weight"] = np.nan
    rows.to_parquet(tmp_path / "rows.parquet")
    result, found = imputed(ebflow, model, tmp_path / "rows.parquet", tmp_path / "s.parquet")
    assert "no density    1 rows, whose observed values are impossible" in result.out
    assert found["weight"].null_count == 0
    assert found["_effective"].to_pylist().count(0.0) == 3
    ebflow("score", model, tmp_path / "rows.parquet", "--output", tmp_path / "s.parquet").quiet()
