"""Prepared folders that were damaged: each maker damages one and returns the message."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ebflow.files import sha256

from .parquet import Cases, images, lists

FOLDERS = Cases()


def _edit(path, **changes):
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _edit_shard(path, **changes):
    shards = json.loads((path / "manifest.json").read_text())["shards"]
    _edit(path, shards=[shards[0] | changes, *shards[1:]])


def replace_shard(path, data):
    """Writes another first shard and a manifest that agrees with its bytes."""
    file = path / "train-00000.parquet"
    pq.write_table(data, file)
    _edit_shard(path, bytes=file.stat().st_size, sha256=sha256(file))


@FOLDERS.add
def manifest_missing(path):
    (path / "manifest.json").unlink()
    return r"manifest.json: no such file, expected the manifest"


@FOLDERS.add
def manifest_is_a_folder(path):
    (path / "manifest.json").unlink()
    (path / "manifest.json").mkdir()
    return r"manifest.json: cannot be read \(Is a directory\)"


@FOLDERS.add
def manifest_not_json(path):
    (path / "manifest.json").write_text("{'name': 1}")
    return r"manifest.json: found no manifest of a data set. Invalid JSON"


@FOLDERS.add
def manifest_not_text(path):
    (path / "manifest.json").write_bytes(b"\xff\xfe\x00")
    return r"manifest.json: found no manifest of a data set. Invalid JSON"


@FOLDERS.add
def manifest_a_list(path):
    (path / "manifest.json").write_text("[1, 2]")
    return r"manifest.json: found no manifest of a data set. Input should be an object"


@FOLDERS.add
def manifest_key_missing(path):
    file = path / "manifest.json"
    found = json.loads(file.read_text())
    del found["levels"]
    file.write_text(json.dumps(found))
    return r"manifest.json, key 'levels'. Field required"


@FOLDERS.add
def manifest_key_unknown(path):
    _edit(path, colour="red")
    return r"manifest.json, key 'colour': found \"red\". Extra inputs"


@FOLDERS.add
def manifest_of_another_version(path):
    _edit(path, version=99, colour="red")
    return r"manifest.json, key 'version': found 99. Input should be 6"


@FOLDERS.add
def manifest_of_wrong_type(path):
    _edit(path, shape="8x8")
    return r"manifest.json, key 'shape': found \"8x8\". Input should be a valid array"


@FOLDERS.add
def manifest_dtype_unknown(path):
    _edit(path, dtype="float16")
    return r"key 'dtype': found \"float16\". Input should be 'uint8', 'float32' or 'float64'"


@FOLDERS.add
def manifest_statistics_nan(path):
    nan = [float("nan")]
    _edit(path, statistics={"mean": nan, "std": nan, "min": nan, "max": nan})
    return r"key 'statistics.mean.0': found NaN. Input should be a finite number"


@FOLDERS.add
def manifest_shape_changed(path):
    _edit(path, shape=[8, 9])
    return r"found 1297 rows of x fixed_size_list<.*\[64\], .*, expected .*\[72\], row"


@FOLDERS.add
def manifest_without_shards(path):
    _edit(path, shards=[])
    return r"manifest.json, key 'shards': found \[\]. Tuple should have at least 1 item"


@FOLDERS.add
def shard_key_missing(path):
    found = json.loads((path / "manifest.json").read_text())["shards"]
    del found[0]["sha256"]
    _edit(path, shards=found)
    return r"key 'shards.0.sha256'. Field required"


@FOLDERS.add
def shard_outside_folder(path):
    _edit_shard(path, file="../../secret.parquet")
    return r"key 'shards.0.file': found \"../../secret.parquet\". String should match"


@FOLDERS.add
def shard_outside_folder_by_dots(path):
    _edit_shard(path, file="..")
    return r"key 'shards.0.file': found \"..\". String should match pattern"


@FOLDERS.add
def count_changed(path):
    _edit(path, counts={"train": 1, "validation": 250, "test": 250})
    return r"key 'counts': found .*\"train\": 1,.*expected .*\"train\": 1297,.*rows of the shards"


@FOLDERS.add
def shard_of_unknown_split(path):
    _edit_shard(path, split="extra")
    return r"key 'counts': found .*, expected {\"extra\": 1297"


@FOLDERS.add
def split_missing(path):
    found = json.loads((path / "manifest.json").read_text())
    shards = [shard for shard in found["shards"] if shard["split"] != "test"]
    _edit(path, shards=shards, counts={"train": 1297, "validation": 250})
    return r"found no split 'test', expected one of train, validation"


@FOLDERS.add
def shard_missing(path):
    (path / "train-00000.parquet").unlink()
    return r"train-00000.parquet: no such file, expected a shard of 1297 rows"


@FOLDERS.add
def shard_truncated(path):
    file = path / "train-00000.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    return r"train-00000.parquet: found \d+ bytes, expected \d+ \(changed\)"


@FOLDERS.add
def shard_with_one_bit_changed(path):
    file = path / "test-00000.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    return r"test-00000.parquet: found SHA-256 \w{64}, expected \w{64} \(changed\)"


@FOLDERS.add
def shard_with_other_rows(path):
    data = pq.read_table(path / "train-00000.parquet")
    replace_shard(path, data.slice(0, 1000))
    return r"train-00000.parquet: found 1000 rows of .*, expected 1297 rows of .*\(manifest\)"


@FOLDERS.add
def shard_with_other_width(path):
    replace_shard(path, pa.table({"x": lists(images(1297, 5))}))
    return (
        r"found 1297 rows of x fixed_size_list<.*\[5\], expected 1297 rows of x fixed.*\[64\], row"
    )


@FOLDERS.add
def shard_without_data_column(path):
    replace_shard(path, pa.table({"y": np.arange(1297)}))
    return (
        r"train-00000.parquet: found 1297 rows of y int64, expected 1297 rows of x fixed_size_list"
    )


@FOLDERS.add
def shard_with_nulls(path):
    values = pa.array([[0] * 64] * 1296 + [None], pa.list_(pa.uint8(), 64))
    replace_shard(path, pa.table({"x": values, "row": np.arange(1297)}))
    return r"train-00000.parquet: found 1297 rows of x .*<element: uint8>.*, expected 1297 row"
