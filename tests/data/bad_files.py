"""What users give by mistake: each maker writes it and returns (source, options, message)."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .parquet import images, lists, table, write

BAD_SOURCES = {}
BAD_FOLDERS = {}


def source(make):
    BAD_SOURCES[make.__name__] = make
    return make


def folder(make):
    BAD_FOLDERS[make.__name__] = make
    return make


def _file(path, columns, metadata=None, **options):
    return write(path / "bad.parquet", columns, metadata, **options)


def _table_with(path, name, values):
    return _file(path, table().set_column(1, name, values))


def _poisoned(values, row, value):
    values = np.array(values, dtype=object)
    values[row] = value
    return pa.array(list(values), from_pandas=False)


# -- there is no Parquet


@source
def unknown_name(path):
    return "digit", {}, r"data.source: found 'digit', expected one of digits, a path that ends in"


@source
def wrong_suffix(path):
    (path / "bad.csv").write_text("a,b\n1,2\n")
    return path / "bad.csv", {}, r"found '.*bad.csv', expected one of digits, a path that ends in"


@source
def missing_file(path):
    return path / "bad.parquet", {}, r"bad.parquet: no such file or folder"


@source
def missing_folder(path):
    return str(path / "none"), {}, r"found '.*none', expected one of digits"


@source
def folder_without_parquet(path):
    (path / "raw").mkdir()
    (path / "raw" / "notes.txt").write_text("none here")
    return path / "raw", {}, r"raw: found no file that ends in .parquet"


@source
def folder_prepared_already(path):
    (path / "raw").mkdir()
    (path / "raw" / "manifest.json").write_text("{}")
    return path / "raw", {}, r"raw: found a prepared data set, expected raw data"


@source
def empty_file(path):
    (path / "bad.parquet").touch()
    return path / "bad.parquet", {}, r"bad.parquet: found an empty file \(0 bytes\)"


@source
def csv_called_parquet(path):
    (path / "bad.parquet").write_text("a,b\n1,2\n")
    return path / "bad.parquet", {}, r"bad.parquet: not a Parquet file: starts with b'a,b\\n'"


@source
def folder_called_parquet_inside_folder(path):
    (path / "raw" / "x.parquet").mkdir(parents=True)
    return path / "raw", {}, r"x.parquet: corrupt or unreadable Parquet \(.*Is a directory"


@source
def truncated(path):
    file = _file(path, table())
    file.write_bytes(file.read_bytes()[:-20])
    return file, {}, r"bad.parquet: truncated Parquet: ends with"


@source
def only_magic(path):
    (path / "bad.parquet").write_bytes(b"PAR1")
    return path / "bad.parquet", {}, r"bad.parquet: truncated Parquet"


@source
def corrupt_footer(path):
    file = _file(path, table())
    data = bytearray(file.read_bytes())
    data[-60:-8] = b"\xff" * 52
    file.write_bytes(data)
    return file, {}, r"bad.parquet: corrupt or unreadable Parquet \("


@source
def column_name_not_text(path):
    file = _file(path, {"image": lists(images())})
    file.write_bytes(file.read_bytes().replace(b"image", b"im\xff\xfee"))
    return file, {}, r"bad.parquet: corrupt or unreadable Parquet \(.*utf-8"


@source
def impossible_footer_length(path):
    file = _file(path, table())
    file.write_bytes(file.read_bytes()[:-8] + b"\xff\xff\xff\x7fPAR1")
    return file, {}, r"bad.parquet: corrupt or unreadable Parquet \("


@source
def corrupt_page(path):
    file = _file(path, table(4000), write_page_checksum=True, compression="none")
    data = bytearray(file.read_bytes())
    data[20000:20100] = bytes(100)
    file.write_bytes(data)
    return file, {}, r"bad.parquet: corrupt or unreadable Parquet \(.*CRC checksum"


@source
def corrupt_compressed_page(path):
    file = _file(path, {"image": lists(images(4000))}, compression="zstd")
    data = bytearray(file.read_bytes())
    data[3000:3400] = b"\xa5" * 400
    file.write_bytes(data)
    return file, {}, r"bad.parquet: corrupt or unreadable Parquet \("


# -- too few rows


@source
def zero_rows(path):
    return _file(path, table(0)), {}, r"bad.parquet: found 0 rows, expected at least"


@source
def zero_rows_in_folder(path):
    (path / "raw").mkdir()
    for name in ("a", "b"):
        write(path / "raw" / f"{name}.parquet", table(0))
    return path / "raw", {}, r"raw: found 0 rows, expected at least"


@source
def one_row(path):
    return _file(path, table(1)), {}, r"bad.parquet: found 1 row, expected at least 4"


@source
def too_few_rows(path):
    options = {"validation": 30, "test": 29}
    message = r"bad.parquet: found 60 rows, expected at least 61: 30 for validation, 29 for test"
    return _file(path, table()), options, message


@source
def fractions_leave_nothing(path):
    options = {"validation": 0.5, "test": 0.5}
    return _file(path, table()), options, r"found 60 rows, expected at least 62: 30 for validation"


# -- columns


@source
def no_column(path):
    return _file(path, pa.table({})), {}, r"bad.parquet: found no column"


@source
def text_column(path):
    message = r"bad.parquet, column name: found string, expected a number.*--data.columns"
    return _table_with(path, "name", pa.array(["x"] * 60)), {}, message


@source
def boolean_column(path):
    message = r"bad.parquet, column flag: found bool, expected a number"
    return _table_with(path, "flag", pa.array([True] * 60)), {}, message


@source
def date_column(path):
    dates = pa.array(np.arange(60), pa.timestamp("ns"))
    return _table_with(path, "day", dates), {}, r"column day: found timestamp\[ns\], expected"


@source
def category_column(path):
    values = pa.array(["u", "v"] * 30).dictionary_encode()
    return _table_with(path, "kind", values), {}, r"column kind: found dictionary<.*expected"


@source
def column_of_nulls(path):
    return _table_with(path, "b", pa.nulls(60)), {}, r"column b: found null, expected a number"


@source
def nested_struct(path):
    values = pa.array([{"u": 1.0, "v": 2.0}] * 60)
    return _table_with(path, "pair", values), {}, r"column pair: found nested struct<u: double"


@source
def variable_length_lists(path):
    values = pa.array([[1.0, 2.0]] * 60)
    return _file(path, {"x": values}), {}, r"column x: found nested list<.*fixed-size list"


@source
def list_of_int64(path):
    message = r"column image: found a fixed-size list of int64, expected uint8, float or double"
    return _file(path, {"image": lists(images(), "int64")}), {}, message


@source
def list_of_lists(path):
    inner = lists(images(120, 3))
    column = pa.FixedSizeListArray.from_arrays(inner, 2)
    return _file(path, {"image": column}), {}, r"column image: found a fixed-size list of fixed_s"


@source
def two_lists(path):
    columns = {"left": lists(images()), "right": lists(images())}
    message = r"bad.parquet: found 2 fixed-size lists \(left, right\), expected one"
    return _file(path, columns), {}, message


@source
def list_chosen_among_scalars(path):
    columns = {"image": lists(images()), "a": np.arange(60.0)}
    message = r"column image: found nested fixed_size_list<.*expected a number"
    return _file(path, columns), {"columns": ["image", "a"]}, message


@source
def missing_column(path):
    message = r"bad.parquet, column z: no such column, expected one of a, b, c$"
    return _file(path, table()), {"columns": ["a", "z"]}, message


@source
def column_chosen_twice(path):
    return _file(path, table()), {"columns": ["a", "a"]}, r"data.columns: found a 2 times"


@source
def no_column_chosen(path):
    return _file(path, table()), {"columns": []}, r"data.columns: found no name"


@source
def duplicate_column(path):
    values = np.arange(60.0)
    data = pa.Table.from_arrays([pa.array(values)] * 3, names=["a", "b", "a"])
    return _file(path, data), {}, r"bad.parquet, column a: found 2 of this name, expected one"


@source
def control_character_in_name(path):
    return _file(path, {"a\nb": np.arange(60.0)}), {}, r"column 'a\\nb': expected a name"


# -- schema metadata


def _image_with(path, **metadata):
    return _file(path, {"image": lists(images())}, metadata)


@source
def shape_of_other_size(path):
    message = r"metadata shape: found \[2, 4\] with 8 values, expected 6 as in the data"
    return _image_with(path, shape="[2, 4]"), {}, message


@source
def shape_not_json(path):
    return _image_with(path, shape="2x3"), {}, r"metadata shape: found b'2x3', expected JSON"


@source
def shape_not_a_list(path):
    return _image_with(path, shape="6"), {}, r"metadata shape: found 6, expected a list"


@source
def shape_negative(path):
    return _image_with(path, shape="[-2, -3]"), {}, r"metadata shape: found \[-2, -3\], expected"


@source
def levels_too_many(path):
    return _image_with(path, levels="300"), {}, r"metadata levels: found 300, expected a whole"


@source
def levels_of_floats(path):
    file = _file(path, {"image": lists(images(), "float32")}, {"levels": "17"})
    return file, {}, r"metadata levels: found 17 with float32 data, expected it only"


# -- values


@source
def null_in_column(path):
    values = _poisoned(np.arange(60.0), 41, None)
    message = r"bad.parquet, row 41, column b: found null, expected a value"
    return _table_with(path, "b", values), {}, message


@source
def nan_in_column(path):
    values = _poisoned(np.arange(60.0), 17, float("nan"))
    message = r"bad.parquet, row 17, column b: found nan, expected a finite number"
    return _table_with(path, "b", values), {}, message


@source
def infinity_in_column(path):
    values = _poisoned(np.arange(60.0), 59, float("-inf"))
    return _table_with(path, "b", values), {}, r"row 59, column b: found -inf, expected a finite"


@source
def nan_far_into_a_large_file(path):
    values = np.arange(200_000.0)
    values[150_001] = np.nan
    file = _file(path, {"a": np.arange(200_000.0), "b": values}, row_group_size=70_000)
    return file, {}, r"bad.parquet, row 150001, column b: found nan"


@source
def null_list(path):
    values = pa.array([[1, 2], None, [3, 4]] * 20, pa.list_(pa.uint8(), 2))
    return (
        _file(path, {"image": values}),
        {},
        r"row 1, column image: found null, expected a list of 2",
    )


@source
def null_list_in_a_later_row_group(path):
    values = pa.array([[1, 2]] * 999 + [None] + [[3, 4]] * 500, pa.list_(pa.uint8(), 2))
    file = _file(path, {"image": values}, row_group_size=300)
    return file, {}, r"row 999, column image: found null, expected a list of 2"


@source
def null_in_list(path):
    values = pa.array([[1, 2], [3, None], [5, 6]] * 20, pa.list_(pa.uint8(), 2))
    return _file(path, {"image": values}), {}, r"row 1, column image\[1\]: found null"


@source
def nan_in_list(path):
    values = images().astype("float32")
    values[33, 4] = np.nan
    file = _file(path, {"image": lists(values, "float32")})
    return file, {}, r"row 33, column image\[4\]: found nan, expected a finite number"


@source
def value_of_more_than_levels(path):
    values = images(levels=17)
    values[7, 2] = 17
    file = _file(path, {"image": lists(values)}, {"levels": "17"})
    return file, {}, r"row 7, column image\[2\]: found 17, expected 0 … 16"


@source
def constant_column(path):
    message = r"bad.parquet, column b: found the constant 3.5 in all 48 training rows, expected"
    return _table_with(path, "b", pa.array(np.full(60, 3.5))), {}, message


@source
def variance_that_overflows(path):
    values = pa.array(np.linspace(-1e200, 1e200, 60))
    return _table_with(path, "b", values), {}, r"column b: found values from .*finite variance"


# -- folders of several files


def _two_files(path, first, second, **metadata):
    (path / "raw").mkdir()
    write(path / "raw" / "one.parquet", first)
    write(path / "raw" / "two.parquet", second, metadata)
    return path / "raw"


@source
def other_type_in_second_file(path):
    message = r"two.parquet, column a: found float, expected double as in .*one.parquet"
    return _two_files(path, table(), table(dtype="float32")), {}, message


@source
def column_missing_in_second_file(path):
    message = r"two.parquet, column b: found no such column, expected double as in"
    return _two_files(path, table(), table().drop_columns("b")), {}, message


@source
def column_added_in_second_file(path):
    second = table().append_column("d", table()["a"])
    message = r"two.parquet, column d: found double, expected no such column as in"
    return _two_files(path, table(), second), {}, message


@source
def other_width_in_second_file(path):
    first, second = ({"image": lists(images(width=n))} for n in (6, 4))
    return _two_files(path, first, second), {}, r"two.parquet, column image: found fixed_size_list"


@source
def other_shape_in_second_file(path):
    data = {"image": lists(images())}
    message = r"two.parquet, schema metadata shape: found \(2, 3\), expected \(6,\) as in"
    return _two_files(path, data, data, shape="[2, 3]"), {}, message


@source
def nan_in_second_file(path):
    values = _poisoned(np.arange(60.0), 5, float("nan"))
    second = table().set_column(1, "b", values)
    return _two_files(path, table(), second), {}, r"two.parquet, row 5, column b: found nan"


@source
def second_file_truncated(path):
    raw = _two_files(path, table(), table())
    file = raw / "two.parquet"
    file.write_bytes(file.read_bytes()[:-3])
    return raw, {}, r"two.parquet: truncated Parquet"


# -- options


@source
def negative_fraction(path):
    return "digits", {"test": -0.1}, r"data.test: found -0.1, expected a whole number of rows"


@source
def fraction_above_one(path):
    return "digits", {"validation": 1.5}, r"data.validation: found 1.5, expected"


@source
def fraction_nan(path):
    return "digits", {"validation": float("nan")}, r"data.validation: found nan, expected"


@source
def zero_test_rows(path):
    return "digits", {"test": 0}, r"data.test: found 0, expected"


@source
def more_rows_than_there_are(path):
    return "digits", {"rows": 1798}, r"data.rows: found 1798, expected 1 … 1797"


@source
def negative_seed(path):
    return "digits", {"seed": -1}, r"data.seed: found -1, expected a whole number of at least 0"


@source
def zero_shard_rows(path):
    return "digits", {"shard_rows": 0}, r"shard_rows: found 0, expected a whole number"


# -- prepared folders that were damaged: each maker damages one and returns the message


def _edit(path, **changes):
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _edit_shard(path, **changes):
    shards = json.loads((path / "manifest.json").read_text())["shards"]
    _edit(path, shards=[shards[0] | changes, *shards[1:]])


def _replace_shard(path, data):
    """Writes another first shard and a manifest that agrees with its bytes."""
    from ebflow.data.schema import file_sha256

    file = path / "train-00000.parquet"
    pq.write_table(data, file)
    _edit_shard(path, bytes=file.stat().st_size, sha256=file_sha256(file))


@folder
def manifest_missing(path):
    (path / "manifest.json").unlink()
    return r"manifest.json: no such file, expected the manifest"


@folder
def manifest_is_a_folder(path):
    (path / "manifest.json").unlink()
    (path / "manifest.json").mkdir()
    return r"manifest.json: cannot be read \(Is a directory\)"


@folder
def manifest_not_json(path):
    (path / "manifest.json").write_text("{'name': 1}")
    return r"manifest.json: not JSON \("


@folder
def manifest_truncated(path):
    file = path / "manifest.json"
    file.write_text(file.read_text()[:-10])
    return r"manifest.json: not JSON \("


@folder
def manifest_not_text(path):
    (path / "manifest.json").write_bytes(b"\xff\xfe\x00")
    return r"manifest.json: not JSON \("


@folder
def manifest_a_list(path):
    (path / "manifest.json").write_text("[1, 2]")
    return r"manifest.json: found \[1, 2\], expected a JSON object"


@folder
def manifest_key_missing(path):
    file = path / "manifest.json"
    found = json.loads(file.read_text())
    del found["levels"]
    file.write_text(json.dumps(found))
    return r"manifest.json: missing key levels, expected 2 … 256, or null"


@folder
def manifest_key_unknown(path):
    _edit(path, colour="red")
    return r"manifest.json: found key colour, expected no such key"


@folder
def manifest_of_another_version(path):
    _edit(path, version=99, colour="red")
    return r"manifest.json, key version: found 99, expected 1"


@folder
def manifest_of_wrong_type(path):
    _edit(path, shape="8x8")
    return r"manifest.json, key shape: found \"8x8\", expected a list of sizes"


@folder
def manifest_dtype_unknown(path):
    _edit(path, dtype="float16")
    return r"key dtype: found \"float16\", expected one of uint8, float32, float64"


@folder
def manifest_statistics_nan(path):
    nan = [float("nan")]
    _edit(path, statistics={"mean": nan, "std": nan, "min": nan, "max": nan})
    return r"key statistics: found .*NaN.*, expected lists of finite numbers"


@folder
def manifest_shape_changed(path):
    _edit(path, shape=[8, 9])
    return r"manifest.json, max: found 64 entries, expected 72"


@folder
def manifest_without_shards(path):
    _edit(path, shards=[])
    return r"manifest.json, key shards: found \[\], expected a list of shards"


@folder
def shard_key_missing(path):
    found = json.loads((path / "manifest.json").read_text())["shards"]
    del found[0]["sha256"]
    _edit(path, shards=found)
    return r"shards\[0\]: missing key sha256, expected text"


@folder
def shard_outside_folder(path):
    _edit_shard(path, file="../../secret.parquet")
    return r"shards\[0\], key file: found \"../../secret.parquet\", expected the name of a"


@folder
def shard_outside_folder_by_dots(path):
    _edit_shard(path, file="..")
    return r"shards\[0\], key file: found \"..\", expected the name of a .parquet file"


@folder
def count_changed(path):
    _edit(path, counts={"train": 1, "validation": 250, "test": 250})
    return r"split train: found 1297 rows in its shards, expected 1 \(key counts\)"


@folder
def shard_of_unknown_split(path):
    _edit_shard(path, split="extra")
    return r"split train: found 0 rows in its shards, expected 1297"


@folder
def split_missing(path):
    found = json.loads((path / "manifest.json").read_text())
    shards = [shard for shard in found["shards"] if shard["split"] != "test"]
    _edit(path, shards=shards, counts={"train": 1297, "validation": 250})
    return r"found no split 'test', expected one of train, validation"


@folder
def shard_missing(path):
    (path / "train-00000.parquet").unlink()
    return r"train-00000.parquet: no such file, expected a shard of 1297 rows"


@folder
def shard_truncated(path):
    file = path / "train-00000.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    return r"train-00000.parquet: found \d+ bytes, expected \d+ \(changed\)"


@folder
def shard_with_one_bit_changed(path):
    file = path / "test-00000.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    return r"test-00000.parquet: found SHA-256 \w{64}, expected \w{64} \(changed\)"


@folder
def shard_with_other_rows(path):
    data = pq.read_table(path / "train-00000.parquet")
    _replace_shard(path, data.slice(0, 1000))
    return r"train-00000.parquet: found 1000 rows, expected 1297 \(manifest\)"


@folder
def shard_with_other_width(path):
    _replace_shard(path, pa.table({"x": lists(images(1297, 5))}))
    return r"column x: found fixed_size_list<.*\[5\], expected a fixed-size list of 64 uint8"


@folder
def shard_without_data_column(path):
    _replace_shard(path, pa.table({"y": np.arange(1297)}))
    return r"column x: found no such column, expected a fixed-size list of 64 uint8"


@folder
def shard_with_nulls(path):
    values = pa.array([[0] * 64] * 1296 + [None], pa.list_(pa.uint8(), 64))
    _replace_shard(path, pa.table({"x": values}))
    return r"train-00000.parquet, row 1296, column x: found null"
