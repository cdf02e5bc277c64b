"""Columns, contexts and values that make no data set; cases as in ``bad_files``."""

import numpy as np
import pyarrow as pa

from .bad_files import case
from .parquet import images, lists, parquet, table, write


def with_b(values, name="b"):
    """Returns a maker of a table whose second column has these values."""
    return parquet(table().set_column(1, name, values))


def poisoned(row, value, values=range(60)):
    """Returns values of which one is replaced."""
    values = np.array(values, dtype=object)
    values[row] = value
    return pa.array(list(values), from_pandas=False)


def image(dtype="uint8", **metadata):
    """Returns a maker of images with schema metadata."""
    return parquet({"image": lists(images(), dtype)}, metadata)


def poisoned_image(value):
    values = images().astype("float32")
    values[33, 4] = value
    return parquet({"image": lists(values, "float32")})


OFFSETS, BYTES = np.arange(61, dtype="int32"), b"\xff" + b"uv" * 29 + b"u"
NO_UTF8 = pa.StringArray.from_buffers(60, pa.py_buffer(OFFSETS), pa.py_buffer(BYTES))
LISTS, FLOATS = lists(images()), np.arange(60.0)
PAIRS = pa.FixedSizeListArray.from_arrays(lists(images(120, 3)), 2)

COLUMNS = {
    "no column": case(parquet({}), r"bad.parquet: found no column"),
    "text that is no utf8": case(with_b(NO_UTF8, "name"), r"bad.parquet: corrupt.*UTF8"),
    "text that is missing": case(with_b(pa.array([*"uv" * 3, "u", None, *"uv" * 26]), "kind"),
        r"bad.parquet, column 'kind', row 7: found null, expected a known level: u, v, or data"),
    "boolean with a null": case(with_b(pa.array([True, False, True, None] * 15), "flag"),
        r"bad.parquet, column 'flag', row 3: found null, expected a finite number"),
    "date that is missing": case(with_b(pa.array([*range(59), None], pa.timestamp("ms")), "day"),
        r"column 'day', row 59: found null, expected a finite number, or data.missing"),
    "time of day": case(with_b(pa.array(np.arange(60), pa.time64("us")), "at"),
        r"column 'at': found time, expected numbers, text, categories or times"),
    "nested struct": case(with_b(pa.array([{"u": 1.0, "v": 2.0}] * 60), "pair"),
        r"column 'pair': found dict, expected"),
    "variable length lists": case(parquet({"x": pa.array([[1.0, 2.0]] * 60)}),
        r"column 'x': found list, expected"),
    "list of int64": case(image("int64"),
        r"column 'image': found a fixed-size list of 6 int64, expected uint8, fl"),
    "list of lists": case(parquet({"image": PAIRS}),
        r"column 'image': found a fixed-size list of 2 fixed"),
    "two lists": case(parquet({"left": LISTS, "right": LISTS}),
        r"bad.parquet: found 2 fixed-size lists \(left, right\), expected one"),
    "list chosen among scalars": case(parquet({"image": LISTS, "a": FLOATS}),
        r"column 'image': found list, expected", columns=["image", "a"]),
    "missing column": case(parquet(table()),
        r"bad.parquet, column .z.: no such column, expected one of a, b, c. Choose others by",
        columns=["a", "z"]),
    "column chosen twice": case(parquet(table()), r"columns: found a 2 times", columns=["a", "a"]),
    "duplicate column": case(
        parquet(pa.Table.from_arrays([pa.array(FLOATS)] * 3, names=["a", "b", "a"])),
        r"bad.parquet, column 'a': found 2 of this name, expected one"),
    "control character in name": case(parquet({"a\nb": FLOATS}),
        r"column 'a\\nb': expected a name"),
    "shape of other size": case(image(shape="[2, 4]"),
        r"metadata, key 'shape': found \(2, 4\) with 8 values, expected 6 as in the data"),
    "shape not json": case(image(shape="2x3"),
        r"metadata, key 'shape': found \"2x3\". Invalid JSON"),
    "shape not a list": case(image(shape="6"),
        r"metadata, key 'shape': found 6. Input should be a valid tuple"),
    "shape negative": case(image(shape="[-2, -3]"),
        r"metadata, key 'shape.0': found -2. Input should be greater"),
    "levels too many": case(image(levels="300"),
        r"metadata, key 'levels': found 300. Input should be less"),
    "levels of floats": case(image("float32", levels="17"),
        r"metadata, key 'levels': found 17 with float32 data, expected none"),
}  # fmt: skip


def given(values, message, **options):
    """Returns a case of a table with the context k."""
    made = parquet(table().append_column("k", pa.array(values)))
    return case(made, message, **{"context": ["k"], **options})


REGIONS = ["north", "south"] * 30
SPLITS = table().append_column("split", pa.array(["train"] * 50 + ["test"] * 10))

CONTEXTS = {
    "context that is absent": case(parquet(table()),
        r"bad.parquet, column 'age': no such column, expected one of a, b, c. .*--data.context",
        context=["age"]),
    "context named twice": given(REGIONS, r"context: found k 2 times, expected once",
        context=["k", "k"]),
    "context of all columns": case(parquet(table()),
        r"found only a, b, c, expected a column without another role. .* by --data.context",
        context=["a", "b", "c"]),
    "context among the features": given(REGIONS, r"columns: found k, a context, expected features",
        columns=["a", "k"]),
    "context of categories that are all missing": given(pa.array([None] * 60, pa.string()),
        r"column 'k': dropped: no value, expected a context"),
    "context of one level": given(["north"] * 60,
        r"column 'k': dropped: always 'north', expected a cont"),
    "context of one number": given([3] * 60,
        r"column 'k': dropped: always 3, expected a context whose values"),
    "context with a null category": given(poisoned(7, None, REGIONS),
        r"column 'k', row 7: found null, expected a known level: north"),
    "context with a nan": given(np.where(FLOATS == 9, np.nan, FLOATS),
        r"column 'k', row 9: found nan, expected a finite number"),
    "context that names splits": case(parquet(SPLITS),
        r"context: found split, names of splits \(split_column\), expected data",
        context=["split"]),
    "classes of reals as context": given(FLOATS % 2,
        r"column 'k': found double, expected classes \(integers or text\)", label="k",
        context=["label"]),
}  # fmt: skip


def two_files(first, second, **metadata):
    """Returns a maker of a folder of two files."""

    def make(path):
        (path / "raw").mkdir()
        write(path / "raw" / "one.parquet", first)
        write(path / "raw" / "two.parquet", second, metadata)
        return path / "raw"

    return make


def truncated_second_file(path):
    file = two_files(table(), table())(path) / "two.parquet"
    file.write_bytes(file.read_bytes()[:-3])
    return path / "raw"


LARGE = np.sqrt(np.arange(200_000.0))
LARGE[150_001] = np.nan
NO_TRAINING = table().set_column(1, "b", pa.array([None] * 48 + [1.0, 2.0] * 6, pa.float64()))
NO_TRAINING = NO_TRAINING.append_column(
    "split", pa.array(["train"] * 48 + ["val"] * 6 + ["test"] * 6)
)
LEVELS = images(levels=17)
LEVELS[7, 2] = 17

VALUES = {
    "null in column": case(with_b(poisoned(41, None)),
        r"bad.parquet, column 'b', row 41: found null, expected a finite number, or "
        r"data.missing: drop leaves such rows out, impute"),
    "infinity is not missing": case(with_b(poisoned(59, float("inf"))),
        r"column 'b', row 59: found inf, expected a finite number$", missing="impute"),
    "infinity in a list is not missing": case(poisoned_image(np.inf),
        r"bad.parquet, column 'image\[4\]', row 33: found inf, expected a finite number$",
        missing="drop"),
    "too few rows when incomplete ones are dropped": case(
        with_b(pa.array([None] * 57 + [1.0, 2.0, 3.0])),
        r"bad.parquet: found 3 rows, expected at least 4", missing="drop"),
    "no complete row to test on": case(with_b(pa.array([None, 1.0, None, None, None, 2.0] * 10)),
        r"found 0 of 2 test rows without a missing value, expected at least 2", missing="impute",
        test=2),
    "column without a value in training": case(parquet(NO_TRAINING),
        r"bad.parquet, column 'b': found no value in all 48 training rows, expected some",
        missing="impute"),
    "nan in column": case(with_b(poisoned(17, float("nan"))),
        r"bad.parquet, column 'b', row 17: found nan, expected a finite number"),
    "infinity in column": case(with_b(poisoned(59, float("-inf"))),
        r"column 'b', row 59: found -inf, expected a finite"),
    "nan far into a large file": case(
        parquet({"a": np.arange(200_000.0), "b": LARGE}, row_group_size=70_000),
        r"bad.parquet, column 'b', row 150001: found nan"),
    "null list": case(
        parquet({"image": pa.array([[1, 2], None, [3, 4]] * 20, pa.list_(pa.uint8(), 2))}),
        r"bad.parquet: corrupt, or no Parquet file \(.*of size=2 but index 2 had size=0"),
    "null in list": case(
        parquet({"image": pa.array([[1, 2], [3, None], [5, 6]] * 20, pa.list_(pa.uint8(), 2))}),
        r"column 'image\[1\]', row 1: found null"),
    "nan in list": case(poisoned_image(np.nan),
        r"column 'image\[4\]', row 33: found nan, expected a finite number"),
    "value of more than levels": case(parquet({"image": lists(LEVELS)}, {"levels": "17"}),
        r"column 'image\[2\]', row 7: found 17, expected 0 … 16"),
    "variance that overflows": case(with_b(pa.array(np.linspace(-1e200, 1e200, 60))),
        r"column 'b': found values from .*finite variance"),
    "other type in second file": case(two_files(table(), table(dtype="float32")),
        r"two.parquet, column 'a': found float, expected double as in .*one.parquet"),
    "column missing in second file": case(two_files(table(), table().drop_columns("b")),
        r"two.parquet, column 'b': found no such column, expected double as in"),
    "column added in second file": case(
        two_files(table(), table().append_column("d", table()["a"])),
        r"two.parquet, column 'd': found double, expected no such column as in"),
    "other width in second file": case(
        two_files({"image": LISTS}, {"image": lists(images(width=4))}),
        r"two.parquet, column 'image': found fixed_size_list"),
    "other shape in second file": case(
        two_files({"image": LISTS}, {"image": LISTS}, shape="[2, 3]"),
        r"two.parquet, schema metadata shape: found \(2, 3\), expected \(6,\) as in"),
    "nan in second file": case(
        two_files(table(), table().set_column(1, "b", poisoned(5, float("nan")))),
        r"two.parquet, column 'b', row 5: found nan"),
    "second file truncated": case(truncated_second_file,
        r"two.parquet: corrupt, or no Parquet file"),
}  # fmt: skip
