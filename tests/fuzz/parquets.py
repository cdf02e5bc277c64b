"""Parquet files that are damaged, and whole ones that hold what no one would train on."""

import datetime
import decimal
import hashlib
import io
import json
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tests.pipelines.data.parquet import images, lists, table

from .values import CHOKING, changed, spoiled

MANIFEST = "manifest.json"

# Values of each type of Arrow
SCALARS = {
    pa.bool_(): st.booleans(), pa.int8(): st.integers(-128, 127),
    pa.int64(): st.integers(-(2**63), 2**63 - 1), pa.uint8(): st.integers(0, 255),
    pa.uint64(): st.integers(0, 2**64 - 1), pa.float16(): st.floats(width=16).map(np.float16),
    pa.float32(): st.floats(width=32), pa.float64(): st.floats(),
    pa.decimal128(9, 2): st.integers(-999, 999).map(decimal.Decimal),
    pa.date32(): st.dates(datetime.date(1900, 1, 1)),
    pa.timestamp("us"): st.datetimes(datetime.datetime(1900, 1, 1)), pa.time64("us"): st.times(),
    pa.string(): st.text(max_size=3), pa.large_string(): st.text(max_size=3),
    pa.binary(): st.binary(max_size=3), pa.binary(2): st.binary(min_size=2, max_size=2),
    pa.null(): st.none(),
}  # fmt: skip

TEXTS = ["", "null", "0", "1", "17", "256", "[2]", "[1, 2]", "[-1]", "[2.0]", "{}", "\ufeff[2]",
         "1" * 5000, "[" * 2000]  # fmt: skip
NAMES = ["image", "x", "label", "split", "a", "b", "", " ", "\n", "a.b", "\u202e",
         "__index_level_0__", "x" * 2000]  # fmt: skip


def types():
    """Returns types of columns, nested ones too."""
    return st.recursive(
        st.sampled_from(list(SCALARS)),
        lambda inner: st.one_of(
            inner.map(pa.list_),
            inner.map(pa.large_list),
            inner.map(lambda kind: pa.struct({"a": kind, "b": kind})),
            inner.map(lambda kind: pa.map_(pa.string(), kind)),
        ),
        max_leaves=2,
    )


def values(kind):
    """Returns the values of a type, None among them."""
    return st.none() | _present(kind)


def _present(kind):
    if kind in SCALARS:
        return SCALARS[kind]
    if pa.types.is_map(kind):
        return st.lists(st.tuples(st.text(max_size=2), values(kind.item_type)), max_size=2)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: values(field.type) for field in kind})
    return st.lists(values(kind.value_type), max_size=2)


@st.composite
def tables(draw):
    """A table of numbers with, mostly, something about it that is none of data's."""
    rows, count = draw(st.integers(4, 12)), draw(st.integers(1, 3))
    table = pa.table({name: np.arange(rows) ** 1.5 for name in "abc"[:count]})
    changes = st.lists(st.sampled_from([_add, _rename, _tell, _cut]), max_size=3)
    for change in draw(changes):
        table = change(draw, table)
    return table


def _add(draw, table):
    return table.append_column(draw(_names()), _column(draw, table.num_rows))


def _rename(draw, table):
    return table.rename_columns([draw(_names()) for _ in table.column_names])


def _tell(draw, table):
    key = draw(st.sampled_from(["shape", "levels", "pandas", "other"]))
    return table.replace_schema_metadata({key: draw(st.sampled_from(TEXTS))})


def _cut(draw, table):
    width = draw(st.integers(0, table.num_columns))
    return table.slice(0, draw(st.integers(0, 12))).select(range(width))


def _names():
    return st.sampled_from(NAMES) | st.text(max_size=5)


def _column(draw, rows):
    """Returns numbers that may be trained on, a list of them a row, or values of any type."""
    kind = draw(st.sampled_from(["numbers", "lists", "fixed", "any"]))
    if kind == "numbers":
        return pa.array(np.arange(rows) / 3)
    if kind == "lists":
        return lists(images(rows, draw(st.integers(1, 4))))
    if kind == "fixed":
        inner, size = draw(st.sampled_from(list(SCALARS))), draw(st.integers(1, 3))
        row = st.lists(values(inner), min_size=size, max_size=size)
        return pa.array([draw(row) for _ in range(rows)], pa.list_(inner, size))
    inner = draw(types())
    return pa.array([draw(values(inner)) for _ in range(rows)], inner)


@cache
def seeds():
    """Returns real files that prepare takes, of every form that a writer has, as bytes."""
    labels = pa.array(np.arange(40) % 3)
    picture = {"shape": json.dumps([2, 3]), "levels": "256"}
    pictures = pa.table({"image": lists(images(40)), "label": labels})
    forms = [
        (table(40), {}),
        (table(40, dtype="float32"), {"compression": "gzip", "data_page_version": "2.0"}),
        (table(40), {"write_page_checksum": True, "row_group_size": 7}),
        (table(40), {"use_dictionary": False, "compression": "none"}),
        (
            table(40),
            {"use_byte_stream_split": True, "use_dictionary": False, "compression": "zstd"},
        ),
        (pictures.replace_schema_metadata(picture), {}),
        (pictures, {"compression": "none", "data_page_size": 16, "row_group_size": 11}),
        (pa.table({"a": np.arange(40), "b": np.arange(40.0) ** 2}), {"compression": "brotli"}),
    ]
    return tuple(_written(data, options) for data, options in forms)


def _written(data, options):
    stream = io.BytesIO()
    pq.write_table(data, stream, **options)
    return stream.getvalue()


@st.composite
def spoilt(draw, files):
    """Bytes of a file of which some are changed, every second time in its footer."""
    data = draw(st.sampled_from(files))
    for _ in range(draw(st.integers(1, 3))):
        data = spoiled(draw, data, files, (max(0, len(data) - 900), len(data)))
    return data


@st.composite
def folders(draw, files):
    """The files of a prepared folder: the manifest says anything, or a shard is another.

    A manifest may tell the truth of the shard that is there.
    """
    name = draw(st.sampled_from(sorted(files)))
    if name == MANIFEST:
        text = changed(files[name]) | changed(files[name], focus=["shards"])
        return {**files, name: draw(text | st.sampled_from(CHOKING))}
    kinds = spoilt([files[name]]) | tables().map(_bytes) | st.sampled_from(seeds())
    found = {**files, name: draw(kinds)}
    return _agreed(found, name) if draw(st.booleans()) else found


def _agreed(files, name):
    manifest = json.loads(files[MANIFEST])
    (shard,) = (found for found in manifest["shards"] if found["file"] == name)
    shard |= {"bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
    return {**files, MANIFEST: json.dumps(manifest).encode()}


def _bytes(data):
    try:
        return _written(data, {})
    except (pa.ArrowException, ValueError):
        return b""
