"""Prepared folders that were damaged: a function that damages one, and the message, by name."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ebflow.files import sha256

from .parquet import images, lists

MANIFEST, SHARD = "manifest.json", "train-00000.parquet"


def change(path, edit):
    """Changes the manifest in place."""
    found = json.loads((path / MANIFEST).read_text())
    edit(found)
    (path / MANIFEST).write_text(json.dumps(found))


def manifest(**changes):
    return lambda path: change(path, lambda found: found.update(changes))


def shard(**changes):
    return lambda path: change(path, lambda found: found["shards"][0].update(changes))


def without(*keys):
    """Returns a function that removes a key of the manifest, at the end of a path of keys."""

    def remove(found):
        for key in keys[:-1]:
            found = found[key]
        del found[keys[-1]]

    return lambda path: change(path, remove)


def content(value):
    return lambda path: (path / MANIFEST).write_bytes(value)


def replace_shard(path, data):
    """Writes another first shard and a manifest that agrees with its bytes."""
    file = path / SHARD
    pq.write_table(data, file)
    shard(bytes=file.stat().st_size, sha256=sha256(file))(path)


def rows(data):
    return lambda path: replace_shard(path, data)


def manifest_is_a_folder(path):
    (path / MANIFEST).unlink()
    (path / MANIFEST).mkdir()


def split_missing(path):
    change(path, lambda found: found.update(
        shards=[shard for shard in found["shards"] if shard["split"] != "test"],
        counts={"train": 1297, "validation": 250},
    ))  # fmt: skip


def truncate(path):
    (path / SHARD).write_bytes((path / SHARD).read_bytes()[:-100])


def change_one_bit(path):
    file = path / "test-00000.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)


def drop_rows(path):
    replace_shard(path, pq.read_table(path / SHARD).slice(0, 1000))


NO_MANIFEST = r"manifest.json: found no manifest of a data set. "
NAN = [float("nan")]
NULLS = pa.array([[0] * 64] * 1296 + [None], pa.list_(pa.uint8(), 64))

FOLDERS = {
    "manifest missing": (lambda path: (path / MANIFEST).unlink(),
        r"manifest.json: no such file, expected the manifest"),
    "manifest is a folder": (manifest_is_a_folder,
        r"manifest.json: cannot be read \(Is a directory\)"),
    "manifest not json": (content(b"{'name': 1}"), NO_MANIFEST + "Invalid JSON"),
    "manifest not text": (content(b"\xff\xfe\x00"), NO_MANIFEST + "Invalid JSON"),
    "manifest a list": (content(b"[1, 2]"), NO_MANIFEST + "Input should be an object"),
    "manifest key missing": (without("levels"), r"manifest.json, key 'levels'. Field required"),
    "manifest key unknown": (manifest(colour="red"),
        r"manifest.json, key 'colour': found \"red\". Extra inputs"),
    "manifest of another version": (manifest(version=99, colour="red"),
        r"manifest.json, key 'version': found 99. Input should be 6"),
    "manifest of wrong type": (manifest(shape="8x8"),
        r"manifest.json, key 'shape': found \"8x8\". Input should be a valid array"),
    "manifest dtype unknown": (manifest(dtype="float16"),
        r"key 'dtype': found \"float16\". Input should be 'uint8', 'float32' or 'float64'"),
    "manifest statistics nan": (
        manifest(statistics={"mean": NAN, "std": NAN, "min": NAN, "max": NAN}),
        r"key 'statistics.mean.0': found NaN. Input should be a finite number"),
    "manifest shape changed": (manifest(shape=[8, 9]),
        r"found 1297 rows of x fixed_size_list<.*\[64\], .*, expected .*\[72\], row"),
    "manifest without shards": (manifest(shards=[]),
        r"manifest.json, key 'shards': found \[\]. Tuple should have at least 1 item"),
    "shard key missing": (without("shards", 0, "sha256"),
        r"key 'shards.0.sha256'. Field required"),
    "shard outside folder": (shard(file="../../secret.parquet"),
        r"key 'shards.0.file': found \"../../secret.parquet\". String should match"),
    "shard outside folder by dots": (shard(file=".."),
        r"key 'shards.0.file': found \"..\". String should match pattern"),
    "count changed": (manifest(counts={"train": 1, "validation": 250, "test": 250}),
        r"key 'counts': found .*\"train\": 1,.*expected .*\"train\": 1297,.*rows of the shards"),
    "shard of unknown split": (shard(split="extra"),
        r"key 'counts': found .*, expected {\"extra\": 1297"),
    "split missing": (split_missing, r"found no split 'test', expected one of train, validation"),
    "shard missing": (lambda path: (path / SHARD).unlink(),
        r"train-00000.parquet: no such file, expected a shard of 1297 rows"),
    "shard truncated": (truncate,
        r"train-00000.parquet: found \d+ bytes, expected \d+ \(changed\)"),
    "shard with one bit changed": (change_one_bit,
        r"test-00000.parquet: found SHA-256 \w{64}, expected \w{64} \(changed\)"),
    "shard with other rows": (drop_rows,
        r"train-00000.parquet: found 1000 rows of .*, expected 1297 rows of .*\(manifest\)"),
    "shard with other width": (rows(pa.table({"x": lists(images(1297, 5))})),
        r"found 1297 rows of x fixed_size_list<.*\[5\], expected 1297 row.*\[64\], row"),
    "shard without data column": (rows(pa.table({"y": np.arange(1297)})),
        r"train-00000.parquet: found 1297 rows of y int64, expected 1297 .* x fixed_size_list"),
    "shard with nulls": (rows(pa.table({"x": NULLS, "row": np.arange(1297)})),
        r"train-00000.parquet: found 1297 rows of x .*<element: uint8>.*, expected 1297 row"),
}  # fmt: skip
