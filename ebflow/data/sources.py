"""Where data comes from: named real data sets, or the user's Parquet.

To add a named source, write a function that returns an Arrow table with ``shape`` and ``levels``
in its schema metadata, and enter it in ``SOURCES``.
"""

__all__ = ["SOURCES", "Source", "describe", "fingerprint", "open_source"]

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ebflow.data.files import open_path
from ebflow.data.layout import read_layout
from ebflow.data.reader import Part, Reader
from ebflow.errors import BadInput


@dataclass(frozen=True)
class Source:
    """A named data set.

    Arguments:
        load: Returns it as an Arrow table.
        rows: Number of examples.
        shape: Shape of an example.
        description: What an example is.
        provenance: Who made it, and where the bytes come from.
        validation: Default size of the validation split: rows, or a fraction.
        test: Default size of the test split.
    """

    load: Callable[[], pa.Table]
    rows: int
    shape: tuple[int, ...]
    description: str
    provenance: str
    validation: int | float = 0.1
    test: int | float = 0.1


def open_source(source: str | Path, columns: Sequence[str] | None = None) -> Reader:
    """Opens a named source, a ``.parquet`` file or a folder of them, and checks its schema.

    Arguments:
        source: A name in ``SOURCES`` or a path; names come first (write ``./digits`` for a path).
        columns: The columns to use; None takes the one fixed-size list, or all.

    Raises:
        BadInput: If there is no such source, or its columns do not make a data set.
    """
    if isinstance(source, str) and source in SOURCES:
        return _open_named(source, columns)
    path = Path(source)
    if path.is_dir() or path.suffix == ".parquet":
        return open_path(path, columns)
    raise BadInput(
        f"data.source: found {str(source)!r}, expected one of {', '.join(SOURCES)}, "
        "a path that ends in .parquet, or a folder of such files"
    )


def fingerprint(source: str | Path, columns: Sequence[str] | None = None) -> str:
    """Returns a SHA-256 of a source's content, the same wherever its files lie."""
    record = open_source(source, columns).record()
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def describe() -> list[dict[str, str]]:
    """Returns name, rows, shape, description and provenance of every named source, as text."""
    return [
        {
            "name": name,
            "rows": str(source.rows),
            "shape": "×".join(map(str, source.shape)),
            "description": source.description,
            "provenance": source.provenance,
        }
        for name, source in SOURCES.items()
    ]


def _open_named(name: str, columns: Sequence[str] | None) -> Reader:
    source = SOURCES[name]
    table = source.load()
    layout = read_layout(table.schema, file=name, columns=columns)
    part = Part(
        label=name,
        rows=len(table),
        layout=layout,
        open=lambda names, size: iter(table.select(list(names)).to_batches(size)),
        sha256=lambda: _table_sha256(table),
    )
    return Reader(name, name, (part,), layout, source.validation, source.test)


def _table_sha256(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _array_table(images: np.ndarray, levels: int) -> pa.Table:
    width = int(np.prod(images.shape[1:]))
    values = pa.array(images.astype(np.uint8).reshape(-1))
    metadata = {"shape": json.dumps(images.shape[1:]), "levels": json.dumps(levels)}
    column = pa.FixedSizeListArray.from_arrays(values, width)
    return pa.table({"image": column}).replace_schema_metadata(metadata)


def _digits() -> pa.Table:
    from sklearn.datasets import load_digits

    return _array_table(load_digits().images, levels=17)


SOURCES: dict[str, Source] = {
    "digits": Source(
        load=_digits,
        rows=1797,
        shape=(8, 8),
        description="handwritten digits, grey levels 0 … 16",
        provenance="test part of UCI Optical Recognition of Handwritten Digits (Alpaydin and "
        "Kaynak, 1998), bundled with scikit-learn",
        validation=250,
        test=250,
    ),
}
