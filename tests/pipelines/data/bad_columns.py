"""Columns and schema metadata that make no data set; makers as in ``bad_files``."""

import numpy as np
import pyarrow as pa

from .parquet import Cases, bad_file, images, lists, table, table_with

COLUMNS = Cases()


@COLUMNS.add
def no_column(path):
    return bad_file(path, pa.table({})), {}, r"bad.parquet: found no column"


@COLUMNS.add
def text_that_is_no_utf8(path):
    offsets, values = np.arange(61, dtype="int32"), b"\xff" + b"uv" * 29 + b"u"
    names = pa.StringArray.from_buffers(60, pa.py_buffer(offsets), pa.py_buffer(values))
    return table_with(path, "name", names), {}, r"bad.parquet: corrupt.*UTF8"


@COLUMNS.add
def text_that_is_missing(path):
    message = (
        r"bad.parquet, column 'kind', row 7: found null, expected a known level: u, v, or data"
    )
    return table_with(path, "kind", pa.array([*"uv" * 3, "u", None, *"uv" * 26])), {}, message


@COLUMNS.add
def boolean_with_a_null(path):
    message = r"bad.parquet, column 'flag', row 3: found null, expected a finite number"
    return table_with(path, "flag", pa.array([True, False, True, None] * 15)), {}, message


@COLUMNS.add
def date_that_is_missing(path):
    dates = pa.array([*range(59), None], pa.timestamp("ms"))
    message = r"column 'day', row 59: found null, expected a finite number, or data.missing"
    return table_with(path, "day", dates), {}, message


@COLUMNS.add
def time_of_day(path):
    times = pa.array(np.arange(60), pa.time64("us"))
    message = r"column 'at': found time, expected numbers, text, categories or times"
    return table_with(path, "at", times), {}, message


@COLUMNS.add
def nested_struct(path):
    values = pa.array([{"u": 1.0, "v": 2.0}] * 60)
    return table_with(path, "pair", values), {}, r"column 'pair': found dict, expected"


@COLUMNS.add
def variable_length_lists(path):
    values = pa.array([[1.0, 2.0]] * 60)
    return bad_file(path, {"x": values}), {}, r"column 'x': found list, expected"


@COLUMNS.add
def list_of_int64(path):
    message = r"column 'image': found a fixed-size list of 6 int64, expected uint8, fl"
    return bad_file(path, {"image": lists(images(), "int64")}), {}, message


@COLUMNS.add
def list_of_lists(path):
    inner = lists(images(120, 3))
    column = pa.FixedSizeListArray.from_arrays(inner, 2)
    return (
        bad_file(path, {"image": column}),
        {},
        r"column 'image': found a fixed-size list of 2 fixed",
    )


@COLUMNS.add
def two_lists(path):
    columns = {"left": lists(images()), "right": lists(images())}
    message = r"bad.parquet: found 2 fixed-size lists \(left, right\), expected one"
    return bad_file(path, columns), {}, message


@COLUMNS.add
def list_chosen_among_scalars(path):
    columns = {"image": lists(images()), "a": np.arange(60.0)}
    message = r"column 'image': found list, expected"
    return bad_file(path, columns), {"columns": ["image", "a"]}, message


@COLUMNS.add
def missing_column(path):
    message = r"bad.parquet, column .z.: no such column, expected one of a, b, c. Choose others by"
    return bad_file(path, table()), {"columns": ["a", "z"]}, message


@COLUMNS.add
def column_chosen_twice(path):
    return bad_file(path, table()), {"columns": ["a", "a"]}, r"columns: found a 2 times"


@COLUMNS.add
def duplicate_column(path):
    values = np.arange(60.0)
    data = pa.Table.from_arrays([pa.array(values)] * 3, names=["a", "b", "a"])
    return bad_file(path, data), {}, r"bad.parquet, column 'a': found 2 of this name, expected one"


@COLUMNS.add
def control_character_in_name(path):
    return bad_file(path, {"a\nb": np.arange(60.0)}), {}, r"column 'a\\nb': expected a name"


def _image_with(path, **metadata):
    return bad_file(path, {"image": lists(images())}, metadata)


@COLUMNS.add
def shape_of_other_size(path):
    message = r"metadata, key 'shape': found \(2, 4\) with 8 values, expected 6 as in the data"
    return _image_with(path, shape="[2, 4]"), {}, message


@COLUMNS.add
def shape_not_json(path):
    return (
        _image_with(path, shape="2x3"),
        {},
        r"metadata, key 'shape': found \"2x3\". Invalid JSON",
    )


@COLUMNS.add
def shape_not_a_list(path):
    return (
        _image_with(path, shape="6"),
        {},
        r"metadata, key 'shape': found 6. Input should be a valid tuple",
    )


@COLUMNS.add
def shape_negative(path):
    return (
        _image_with(path, shape="[-2, -3]"),
        {},
        r"metadata, key 'shape.0': found -2. Input should be greater",
    )


@COLUMNS.add
def levels_too_many(path):
    return (
        _image_with(path, levels="300"),
        {},
        r"metadata, key 'levels': found 300. Input should be less",
    )


@COLUMNS.add
def levels_of_floats(path):
    file = bad_file(path, {"image": lists(images(), "float32")}, {"levels": "17"})
    return file, {}, r"metadata, key 'levels': found 17 with float32 data, expected none"
