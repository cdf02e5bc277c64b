"""Values that no density has, and files of a folder that differ; makers as in ``bad_files``."""

import numpy as np
import pyarrow as pa

from .parquet import Cases, bad_file, images, lists, poisoned, table, table_with, write

VALUES = Cases()


@VALUES.add
def null_in_column(path):
    values = poisoned(np.arange(60.0), 41, None)
    message = r"bad.parquet, column 'b', row 41: found null, expected a finite number"
    return table_with(path, "b", values), {}, message


@VALUES.add
def a_null_names_what_may_be_done(path):
    message = r"column 'b', row 41: found null, .*data.missing: drop leaves such rows out, impute"
    return table_with(path, "b", poisoned(np.arange(60.0), 41, None)), {}, message


@VALUES.add
def infinity_is_not_missing(path):
    values = poisoned(np.arange(60.0), 59, float("inf"))
    message = r"column 'b', row 59: found inf, expected a finite number$"
    return table_with(path, "b", values), {"missing": "impute"}, message


@VALUES.add
def infinity_in_a_list_is_not_missing(path):
    values = images().astype("float32")
    values[33, 4] = np.inf
    file = bad_file(path, {"image": lists(values, "float32")})
    message = r"bad.parquet, column 'image\[4\]', row 33: found inf, expected a finite number$"
    return file, {"missing": "drop"}, message


@VALUES.add
def too_few_rows_when_incomplete_ones_are_dropped(path):
    values = pa.array([None] * 57 + [1.0, 2.0, 3.0])
    message = r"bad.parquet: found 3 rows, expected at least 4"
    return table_with(path, "b", values), {"missing": "drop"}, message


@VALUES.add
def no_complete_row_to_test_on(path):
    values = pa.array([None, 1.0, None, None, None, 2.0] * 10)
    message = r"found 0 of 2 test rows without a missing value, expected at least 2"
    return table_with(path, "b", values), {"missing": "impute", "test": 2}, message


@VALUES.add
def column_without_a_value_in_training(path):
    data = table().set_column(1, "b", pa.array([None] * 48 + [1.0, 2.0] * 6, pa.float64()))
    data = data.append_column("split", pa.array(["train"] * 48 + ["val"] * 6 + ["test"] * 6))
    message = r"bad.parquet, column 'b': found no value in all 48 training rows, expected some"
    return bad_file(path, data), {"missing": "impute"}, message


@VALUES.add
def nan_in_column(path):
    values = poisoned(np.arange(60.0), 17, float("nan"))
    message = r"bad.parquet, column 'b', row 17: found nan, expected a finite number"
    return table_with(path, "b", values), {}, message


@VALUES.add
def infinity_in_column(path):
    values = poisoned(np.arange(60.0), 59, float("-inf"))
    return table_with(path, "b", values), {}, r"column 'b', row 59: found -inf, expected a finite"


@VALUES.add
def nan_far_into_a_large_file(path):
    values = np.sqrt(np.arange(200_000.0))
    values[150_001] = np.nan
    file = bad_file(path, {"a": np.arange(200_000.0), "b": values}, row_group_size=70_000)
    return file, {}, r"bad.parquet, column 'b', row 150001: found nan"


@VALUES.add
def null_list(path):
    values = pa.array([[1, 2], None, [3, 4]] * 20, pa.list_(pa.uint8(), 2))
    message = r"bad.parquet: corrupt, or no Parquet file \(.*of size=2 but index 2 had size=0"
    return bad_file(path, {"image": values}), {}, message


@VALUES.add
def null_in_list(path):
    values = pa.array([[1, 2], [3, None], [5, 6]] * 20, pa.list_(pa.uint8(), 2))
    return bad_file(path, {"image": values}), {}, r"column 'image\[1\]', row 1: found null"


@VALUES.add
def nan_in_list(path):
    values = images().astype("float32")
    values[33, 4] = np.nan
    file = bad_file(path, {"image": lists(values, "float32")})
    return file, {}, r"column 'image\[4\]', row 33: found nan, expected a finite number"


@VALUES.add
def value_of_more_than_levels(path):
    values = images(levels=17)
    values[7, 2] = 17
    file = bad_file(path, {"image": lists(values)}, {"levels": "17"})
    return file, {}, r"column 'image\[2\]', row 7: found 17, expected 0 … 16"


@VALUES.add
def variance_that_overflows(path):
    values = pa.array(np.linspace(-1e200, 1e200, 60))
    return table_with(path, "b", values), {}, r"column 'b': found values from .*finite variance"


def _two_files(path, first, second, **metadata):
    (path / "raw").mkdir()
    write(path / "raw" / "one.parquet", first)
    write(path / "raw" / "two.parquet", second, metadata)
    return path / "raw"


@VALUES.add
def other_type_in_second_file(path):
    message = r"two.parquet, column 'a': found float, expected double as in .*one.parquet"
    return _two_files(path, table(), table(dtype="float32")), {}, message


@VALUES.add
def column_missing_in_second_file(path):
    message = r"two.parquet, column 'b': found no such column, expected double as in"
    return _two_files(path, table(), table().drop_columns("b")), {}, message


@VALUES.add
def column_added_in_second_file(path):
    second = table().append_column("d", table()["a"])
    message = r"two.parquet, column 'd': found double, expected no such column as in"
    return _two_files(path, table(), second), {}, message


@VALUES.add
def other_width_in_second_file(path):
    first, second = ({"image": lists(images(width=n))} for n in (6, 4))
    return (
        _two_files(path, first, second),
        {},
        r"two.parquet, column 'image': found fixed_size_list",
    )


@VALUES.add
def other_shape_in_second_file(path):
    data = {"image": lists(images())}
    message = r"two.parquet, schema metadata shape: found \(2, 3\), expected \(6,\) as in"
    return _two_files(path, data, data, shape="[2, 3]"), {}, message


@VALUES.add
def nan_in_second_file(path):
    values = poisoned(np.arange(60.0), 5, float("nan"))
    second = table().set_column(1, "b", values)
    return _two_files(path, table(), second), {}, r"two.parquet, column 'b', row 5: found nan"


@VALUES.add
def second_file_truncated(path):
    raw = _two_files(path, table(), table())
    file = raw / "two.parquet"
    file.write_bytes(file.read_bytes()[:-3])
    return raw, {}, r"two.parquet: corrupt, or no Parquet file"
