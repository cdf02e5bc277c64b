"""Files of rows: Parquet, CSV with a header, and arrays of NumPy.

A file opens as a ``Part``: its schema, its number of rows, and a reader of record batches that
holds little of the file in memory. We read Parquet with ``ParquetFile``: the scanner of
``pyarrow.dataset`` holds a whole row group, which may be the whole file.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ebflow.errors import BadInput
from ebflow.files import sha256
from pipelines.data.arrays import array_batch, array_schema
from pipelines.data.messages import Place, reading

BUFFER = 1 << 18

# Bytes of a CSV file that are parsed at a time; the first ones decide the types of columns.
CSV_BYTES = 4 << 20

# Other types for those of the first block: it may be empty, and times of day are text.
FIRST = {pa.null(): pa.float64(), pa.time32("s"): pa.string()}

# Texts that stand for a missing number in CSV files, besides those that Arrow knows.
MISSING = ("?", "-", ".", "None", "<NA>")

# The part of Arrow's message about a value that is not of its column's type.
BAD_VALUE = re.compile(r"In CSV column #(\d+): .*CSV conversion error to")

# A function of names of columns and a number of rows; it returns all rows in record batches of
# about so many.
Read = Callable[[Sequence[str], int], Iterator[pa.RecordBatch]]


class Part(NamedTuple):
    """One file that has been opened, or the rows of a named source."""

    label: str  #: Its name in messages
    schema: pa.Schema  #: Its columns
    rows: int  #: Its number of rows
    read: Read  #: Reads it
    sha256: Callable[[], str]  #: Returns the SHA-256 of its content
    kind: str  #: The name of its format
    version: object = None  #: A value that changes with its content

    def batches(self, names: Sequence[str], size: int) -> Iterator[tuple[pa.RecordBatch, Place]]:
        """Yields all rows in batches of at most ``size``, and their places.

        Raises:
            BadInput: if the file is corrupt, or has another number of rows.
        """
        with reading(self.label, self.kind):
            start, batches = 0, self.read(list(names), size)
        while True:
            with reading(self.label, self.kind):
                if (batch := next(batches, None)) is None:
                    break
                batch.validate(full=True)  # text is UTF-8
            for k in range(0, len(batch), size):
                yield batch.slice(k, size), Place(self.label, start + k)
            start += len(batch)
        if start != self.rows:
            expected = f"{self.rows} (its footer)"
            raise BadInput(file=self.label, found=f"{start} rows", expected=expected)


def _part(path: Path, kind: str, schema: pa.Schema, rows: int, read: Read) -> Part:
    status = path.stat()
    version = (str(path.absolute()), status.st_mtime_ns, status.st_size)
    return Part(str(path), schema, rows, read, partial(sha256, path), kind, version)


def parquet(path: Path) -> Part:
    """Opens Parquet; reads the footer. Reading takes a page of each column, about 2 MB."""

    def read(names: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        options = {"pre_buffer": False, "page_checksum_verification": True}
        file = pq.ParquetFile(path, buffer_size=BUFFER, **options)
        return file.iter_batches(size, columns=names)

    with reading(path), pq.ParquetFile(path) as file:
        return _part(path, "Parquet", file.schema_arrow, file.metadata.num_rows, read)


def _csv(path: Path, texts: Collection[str] = ()) -> Part:
    """Opens CSV with a header; parses all of it, for the types of columns and the number of rows.

    An empty field is null; so are the texts of ``MISSING`` among numbers. Columns of ``texts`` are
    text, whatever their values are.
    """
    with reading(path, "CSV"):
        _check_first_lines(path)
        status = path.stat()
        schema, rows = _scanned(path, status.st_mtime_ns, status.st_size, frozenset(texts))

    def read(names: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        """Parses the file again, by the types that it has; empty text is null."""
        types = dict(zip(schema.names, schema.types, strict=True))
        for batch in _csv_reader(path, column_types=types, include_columns=names):
            texts = (pa.types.is_string(kind) for kind in batch.schema.types)
            pairs = zip(batch.columns, texts, strict=True)
            columns = [pc.if_else(pc.equal(c, ""), None, c) if text else c for c, text in pairs]
            yield pa.record_batch(columns, batch.schema)

    return _part(path, "CSV", schema, rows, read)


def _csv_reader(path: Path, **options: Any) -> pyarrow.csv.CSVStreamingReader:  # noqa: ANN401
    blocks = pyarrow.csv.ReadOptions(use_threads=False, block_size=CSV_BYTES)
    convert = pyarrow.csv.ConvertOptions(**options)
    convert.null_values = [*convert.null_values, *MISSING]
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    options = {"read_options": blocks, "parse_options": parse, "convert_options": convert}
    return pyarrow.csv.open_csv(path, **options)


@cache
def _scanned(path: Path, changed: int, size: int, texts: Collection[str]) -> tuple[pa.Schema, int]:
    """Returns the names and types of a CSV file's columns, and its number of rows.

    The first block decides the types. A column that another block contradicts becomes text;
    integers become reals first. Integers with leading zeros are text.
    """
    with _csv_reader(path) as reader:
        schema = reader.schema
    _check_header(path, schema.names)
    if pa.binary() in schema.types:
        raise _other_encoding(path)
    types = {f.name: pa.string() if f.name in texts else FIRST.get(f.type, f.type) for f in schema}
    rows = None
    while rows is None:
        try:
            rows = sum(map(len, _csv_reader(path, column_types=types)))
        except pa.ArrowInvalid as error:
            if "invalid UTF8" in str(error):
                raise _other_encoding(path) from None
            if (found := BAD_VALUE.search(str(error))) is None:
                raise
            name = schema.names[int(found[1])]
            types[name] = pa.float64() if pa.types.is_integer(types[name]) else pa.string()
    types |= dict.fromkeys(_zero_padded(path, types), pa.string())
    return pa.schema([(name, types[name]) for name in schema.names]), rows


def _zero_padded(path: Path, types: Mapping[str, pa.DataType]) -> set[str]:
    """Returns the columns of integers in which some have leading zeros."""
    whole = {name: pa.string() for name, kind in types.items() if pa.types.is_integer(kind)}
    batches = _csv_reader(path, column_types=whole, include_columns=[*whole]) if whole else ()
    return {
        name
        for batch in batches
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
        if pc.any(pc.match_substring_regex(column, r"^[+-]?0\d")).as_py()
    }


def _check_header(path: Path, names: Sequence[str]) -> None:
    with suppress(pa.ArrowInvalid):
        pa.array(names).cast(pa.float64())
        found, hint = "numbers in the first line", "Put a line of names before it"
        raise BadInput(file=path, found=found, expected="names of columns", hint=hint)


def _check_first_lines(path: Path) -> None:
    """Raises BadInput if the first two lines show another encoding or separator."""
    with path.open("rb") as file:
        header, row = (file.readline(CSV_BYTES) for _ in range(2))
    try:
        header.decode()
    except UnicodeDecodeError:
        raise _other_encoding(path) from None
    for mark, word in ((";", "semicolons"), ("\t", "tabs")):
        if mark.encode() in header and b"," not in header:
            decimal = ", decimal=','" if b"," in row else ""
            raise _other_csv(path, f"columns between {word}", "commas", f"sep={mark!r}{decimal}")


def _other_encoding(path: Path) -> BadInput:
    return _other_csv(path, "another encoding", "UTF-8", "encoding='latin-1' or 'utf-16'")


def _other_csv(path: Path, found: str, expected: str, options: str) -> BadInput:
    hint = f"pandas.read_csv(path, {options}).to_csv(new, index=False) converts it"
    return BadInput(file=path, found=found, expected=expected, hint=hint)


def _npy(path: Path) -> Part:
    """Opens an array, memory-mapped: images if it is of uint8 or has several dimensions."""
    with reading(path, "NumPy", also=(ValueError, EOFError)):
        array = np.load(path, mmap_mode="r")
    if array.dtype.kind not in "buif" or not array.ndim:
        found = f"an array of shape {array.shape} and type {array.dtype}"
        hint = "np.asarray(rows, dtype=float) makes one"
        raise BadInput(file=path, found=found, expected="rows of numbers", hint=hint)
    rows = array[:, None] if array.ndim == 1 else array
    kind, levels = rows.dtype.kind, 256 if rows.dtype == np.uint8 else None
    if kind != "f" and levels is None and rows.ndim > 2:
        found = f"examples of shape {rows.shape[1:]} and type {rows.dtype}"
        hint = "rows.astype('uint8') or rows.astype('float32') converts them"
        raise BadInput(file=path, found=found, expected="uint8 levels or reals", hint=hint)
    dtype = "float64" if rows.dtype.itemsize > 4 else "float32"
    if kind != "f":
        dtype = "uint8" if kind == "b" else rows.dtype.name
    options = {"levels": levels, "one_list": rows.ndim > 2 or levels is not None}

    def read(names: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        parts = (rows[k : k + size].astype(dtype) for k in range(0, len(rows), size))
        return (array_batch(part, names, **options) for part in parts)

    schema = array_schema(rows.shape[1:], dtype, **options)
    return _part(path, "NumPy", schema, len(rows), read)


# The function that opens a file, by the end of its name.
FORMATS: dict[str, Callable[..., Part]] = {".parquet": parquet, ".csv": _csv, ".npy": _npy}
