"""The same rows in files of every kind."""

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from pipelines.data import files
from pipelines.data.dataset import Dataset
from pipelines.data.sources import find_source
from tests.prepared import prepare

from .parquet import write

ROWS = 5_000


def table():
    draws = np.random.default_rng(0)
    whole, truth = draws.integers(-5, 90, ROWS), draws.random(ROWS) < 0.3
    return pa.table({"x1": draws.normal(size=ROWS), "x2": whole, "x3": truth})


WRITERS = {
    "rows.parquet": lambda t, path: pq.write_table(t, path, row_group_size=700),
    "rows.csv": csv.write_csv,
    "rows.npy": lambda t, path: np.save(path, matrix(t)),
}


def matrix(made):
    return np.stack([column.to_numpy().astype(float) for column in made.columns], 1)


@pytest.fixture(params=WRITERS)
def file(request, tmp_path):
    """The table in a file of one kind."""
    WRITERS[request.param](table(), tmp_path / request.param)
    return tmp_path / request.param


def test_every_file_holds_the_rows(file):
    reader = find_source(file).reader()
    assert reader.rows == ROWS and reader.layout.columns == ("x1", "x2", "x3")
    found = np.concatenate([x for x, *_ in reader.batches()])
    np.testing.assert_array_equal(found, matrix(table()))


def test_columns_are_read_by_name(file):
    found = next(find_source(file).reader(["x3", "x1"]).batches()).x
    np.testing.assert_array_equal(found, matrix(table())[:, [2, 0]])


def test_every_file_is_prepared_alike(file, tmp_path):
    manifest = prepare(file, tmp_path / "out")
    expected = prepare(write(tmp_path / "first.parquet", table()), tmp_path / "expected")
    assert manifest.counts == expected.counts
    np.testing.assert_allclose(manifest.statistics.std, expected.statistics.std, rtol=1e-12)
    rows, other = (
        Dataset(tmp_path / name).split("train").tensor() for name in ("out", "expected")
    )
    assert rows.equal(other)


@pytest.mark.parametrize(("values", "kind"), [
    (["7"] * 40 + ["0.5"], pa.float64()), (["7"] * 40 + ["0.5", "A1"], pa.string()),
    ([""] * 40 + ["A1"], pa.string()), (["2020-01-01"] * 40 + ["never"], pa.string()),
    (["true"] * 40 + ["unknown"], pa.string()), (["12:34", "01:30"], pa.string()),
    (["17", "01234"], pa.string()), (['"two\nlines"'] * 40, pa.string()),
])  # fmt: skip
@pytest.mark.parametrize("turn", [1, -1])
def test_a_csv_column_has_the_type_of_all_rows(tmp_path, monkeypatch, values, kind, turn):
    """Whatever their order is, and however they are divided into blocks."""
    monkeypatch.setattr(files, "CSV_BYTES", 64)
    rows = [f"{k},{value}" for k, value in enumerate(values[::turn])]
    (tmp_path / "in.csv").write_text("\n".join(["a,b", *rows]))
    part = find_source(tmp_path / "in.csv").parts[0]
    assert part.schema.types == [pa.int64(), kind]
    found = [value for batch, _ in part.batches(["b"], 9) for value in batch["b"].to_pylist()]
    expected = [value.strip('"') or None for value in values[::turn]]
    assert found == ([*map(float, expected)] if kind == pa.float64() else expected)


@pytest.mark.parametrize("sign", ["", "?", "-", ".", "NA", "None", "null", "<NA>"])
def test_signs_of_missing_numbers_in_csv_are_missing(tmp_path, sign):
    """In a column of numbers, of few or many values; text is text unless it is empty."""
    rows = [f"{k},{k % 3},{'+-'[k % 2]}" for k in range(20)]
    (tmp_path / "in.csv").write_text("\n".join(["a,b,c", *rows, f"{sign},{sign},+", "1.5,1,-"]))
    reader = find_source(tmp_path / "in.csv").reader(missing="drop")
    assert [column.dtype for column in reader.columns] == ["double", "int64", "string"]
    assert reader.incomplete.nonzero()[0].tolist() == [20]
    assert [column.levels for column in reader.columns] == [(), (), ("+", "-")]


def test_a_csv_of_categories_with_numbers_among_them(tmp_path):
    """More than a tenth are words."""
    rows = [f"{k},{('north', '1', '2', '3')[k % 4]}" for k in range(40)]
    (tmp_path / "in.csv").write_text("\n".join(["a,b", *rows]))
    reader = find_source(tmp_path / "in.csv").reader()
    assert [column.levels for column in reader.columns] == [(), ("1", "2", "3", "north")]


def test_columns_that_are_not_asked_for_need_no_names(tmp_path):
    """As ``frame.to_csv(path)`` writes its index; a second one may be there."""
    (tmp_path / "in.csv").write_text(",,a,b\n0,7,1.5,2\n1,8,3.5,4\n")
    reader = find_source(tmp_path / "in.csv").reader(["b", "a"])
    np.testing.assert_array_equal(next(reader.batches()).x, [[2, 1.5], [4, 3.5]])


def test_images_are_an_array(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 2, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    reader = find_source(tmp_path / "images.npy").reader()
    assert (reader.shape, reader.levels) == ((2, 3), 256)
    np.testing.assert_array_equal(next(reader.batches()).x, images.reshape(40, 6))


@pytest.mark.parametrize("dtype", ["<f2", ">f4", ">f8", "bool", "int8", "uint16"])
def test_types_of_arrays_are_taken_as_numbers(tmp_path, dtype):
    rows = np.random.default_rng(0).integers(0, 2, (30, 2)).astype(dtype)
    np.save(tmp_path / "rows.npy", rows)
    found = next(find_source(tmp_path / "rows.npy").reader().batches()).x
    np.testing.assert_array_equal(found, rows.astype(float))


def test_what_is_missing_is_taken_where_it_may_be(tmp_path):
    columns = {
        "a": [1.5, None, float("nan"), 2],
        "b": [1, None, 3, 8],
        "c": [True, False, None, True],
    }
    pq.write_table(pa.table(columns), tmp_path / "holes.parquet")
    found = next(find_source(tmp_path / "holes.parquet").reader(missing="impute").batches()).x
    expected = [[1.5, 1, 1], [np.nan, np.nan, 0], [np.nan, 3, np.nan], [2, 8, 1]]
    np.testing.assert_array_equal(found, expected)
