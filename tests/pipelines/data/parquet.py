"""Small Parquet files."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.sources import find_source


def fingerprint(source, **options) -> str:
    """Returns the SHA-256 of a source's content."""
    return find_source(source).reader(**options).digest


def mnist9k() -> Path | None:
    """Returns the path of mnist9k.parquet if this machine has it."""
    if path := os.environ.get("EBFLOW_MNIST9K"):
        return Path(path)
    candidates = (p / "shared/data/mnist9k.parquet" for p in Path(__file__).resolve().parents)
    return next((path for path in candidates if path.exists()), None)


def lists(values, dtype="uint8"):
    """Returns a fixed-size list column of a matrix."""
    values = np.asarray(values, dtype=dtype)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def images(rows=60, width=6, levels=256, seed=0):
    """Returns a random uint8 matrix."""
    return np.random.default_rng(seed).integers(0, levels, (rows, width), dtype=np.uint8)


def table(rows=60, seed=0, dtype="float64"):
    """Returns a table of three continuous columns."""
    rng = np.random.default_rng(seed)
    return pa.table({name: rng.normal(size=rows).astype(dtype) for name in ("a", "b", "c")})


def write(path, columns, metadata=None, **options) -> Path:
    """Writes a table, or a dict of columns, with schema metadata."""
    data = columns if isinstance(columns, pa.Table) else pa.table(columns)
    if metadata:
        data = data.replace_schema_metadata(metadata)
    pq.write_table(data, path, **options)
    return path


def parquet(columns, metadata=None, **options):
    """Returns a function that writes ``bad.parquet`` into a folder and returns its path."""
    return lambda path: write(path / "bad.parquet", columns, metadata, **options)


def damaged(columns, damage, **options):
    """Returns such a function that changes the content of the file by ``damage``."""

    def make(path):
        file = write(path / "bad.parquet", columns, **options)
        file.write_bytes(damage(file.read_bytes()))
        return file

    return make


def tree(folder) -> dict[str, bytes | None]:
    """Returns every path under a folder with its content."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in sorted(Path(folder).rglob("*"))
    }
