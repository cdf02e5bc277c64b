"""Tables of a trained flow: sources opened by its columns, and rows in the types of its data."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pyarrow.csv import CSVWriter
from torch import Tensor

from ebflow.errors import BadInput
from ebflow.tables import Column, Columns
from ebflow.tables.batches import Batch
from pipelines.data.arrays import array_table
from pipelines.data.files import Part
from pipelines.data.layout import is_text
from pipelines.data.messages import listed
from pipelines.data.reader import Reader, encoded
from pipelines.data.schema import Schemas
from pipelines.data.sources import find_source
from pipelines.errors import StageFailed
from pipelines.inference.models import Model
from pipelines.store.files import check_writable, drafted

if TYPE_CHECKING:
    import pandas as pd

FORMATS = (".parquet", ".csv")  # Suffixes of the files that ``write`` writes


def match(source: str | Path, model: Model, *, new_levels: bool = False) -> Reader:
    """Opens a source, as ``run density`` does, by the columns of a model; values may be missing.

    Columns go by their names; only those of a model of arrays go by position. ``new_levels`` is
    True if columns of data may have levels that the model does not know.

    Raises:
        BadInput: If there is no such source, or its columns are not the model's.
    """
    data, columns, schemas = model.columns, None, Schemas(model.columns, model.context)
    found = find_source(source, _texts(schemas))
    context = [] if model.context is None else model.context.features
    if data is not None:
        present = set(found.parts[0].schema.names)
        columns = [c.name for c in data if not c.dropped or (c.terms and c.name in present)]
    for part in found.parts:
        _expect(part, [*(data.features if data else ()), *context])
    reader = found.reader(columns, missing="impute", context=context, flow_schemas=schemas)
    if data is None:
        reader = _as_array(reader, model)
    _check_units(reader, schemas)
    _check_texts(reader, schemas)
    return replace(reader, new_levels=new_levels)


def batches(reader: Reader) -> Iterator[Batch]:
    """Yields all rows of a source in order, with their contexts."""
    for x, _, context in reader.batches():
        yield Batch(torch.tensor(x), None if context is None else torch.from_numpy(context))


def sources(reader: Reader, size: int, only: Collection[str] | None = None) -> Iterator[pa.Table]:
    """Yields all rows of a source, ``size`` at a time: all columns, or only some, of all files.

    Raises:
        BadInput: If two columns have one name, or a column has types that have no common one.
    """
    schemas = [
        pa.schema([f for f in part.schema if only is None or f.name in only], part.schema.metadata)
        for part in reader.parts
    ]
    try:
        rest = [pa.unify_schemas(schemas, promote_options="permissive").empty_table()]
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        problem = f"two columns have one name, or one has two types ({error})"
        raise BadInput(problem, file=reader.label, hint="Rename or convert them") from None
    for part, schema in zip(reader.parts, schemas, strict=True):
        for batch, _ in part.batches(schema.names, size):
            rest = [pa.concat_tables([*rest, pa.table(batch)], promote_options="permissive")]
            while len(rest[0]) >= size:
                yield rest[0][:size]
                rest = [rest[0][size:]]
    yield from (table for table in rest if len(table))


def context_codes(source: str | Path, columns: Columns) -> np.ndarray:
    """Returns the numbers of a source's columns of contexts, with shape (N, K).

    Raises:
        BadInput: If a column is missing, a value is not one of its column's, or there is no row.
    """
    codes = []
    for part in find_source(source, _texts([columns])).parts:
        _expect(part, columns.features)
        codes += [encoded(columns, *each) for each in part.batches(columns.features, 1 << 20)]
    if not sum(map(len, codes)):
        raise BadInput(file=str(source), found="0 rows", expected="some")
    return np.concatenate(codes)


def _texts(schemas: Iterable[Columns | None]) -> list[str]:
    """Returns the columns that training rows have as text; the types of a CSV file are guesses."""
    return [
        column.name
        for columns in filter(None, schemas)
        for column in columns
        if column.kind in ("category", "text")
        and all(isinstance(level, str) for level in (*column.levels, *column.categories))
    ]


def _expect(part: Part, names: Sequence[str]) -> None:
    """Raises BadInput if a file lacks columns."""
    if lacking := [name for name in names if name not in part.schema.names]:
        raise BadInput(
            file=part.label,
            found=f"no column {', '.join(lacking[:8])}",
            expected=f"all columns of the flow: {listed(names)}",
        )


def _as_array(reader: Reader, model: Model) -> Reader:
    """Returns a source for a model of rows without names, which have its width and levels."""
    if reader.layout.lists is None:
        types = reader.layout.types
        numbers = (Column(name, "number", str(types[name])) for name in reader.layout.columns)
        fixed = reader.schemas._replace(data=Columns(numbers, "arrow"))
        reader = replace(reader, flow_schemas=fixed)
    found = _kind(reader.width, reader.levels)
    expected = _kind(math.prod(model.flow.event_shape), model.arrays.get("levels"))
    if found != expected:
        expected = f"{expected}, as of {model.label}"
        raise BadInput(file=reader.label, found=found, expected=expected)
    return reader


def _kind(width: int, levels: int | None) -> str:
    values = "real numbers" if levels is None else f"integers of {levels} levels"
    return f"rows of {width} {values}"


def _check_units(reader: Reader, schemas: Schemas) -> None:
    """Raises BadInput if a column has another unit of measurement than the flow's."""
    units = {column.name: column.unit for each in schemas for column in each or ()}
    for name, unit in reader.layout.units.items():
        if units.get(name) not in (None, unit):
            place = {"file": reader.label, "column": name}
            found, expected = f"the unit {unit}", units[name]
            raise BadInput(**place, found=found, expected=expected, hint="Convert it")


def _check_texts(reader: Reader, schemas: Schemas) -> None:
    """Raises BadInput at a text that is no number; reads columns that have become text."""
    for part, columns in product(reader.parts, filter(None, schemas)):
        types = dict(zip(part.schema.names, part.schema.types, strict=True))
        texts = [
            column
            for column in columns.modelled
            if column.kind != "category" and is_text(types[column.name])
            and str(types[column.name]) != column.dtype
        ]  # fmt: skip
        chosen = Columns(texts, columns.library)
        for batch, place in part.batches(chosen.names, 1 << 16) if texts else ():
            encoded(chosen, batch, place, missing=True)


def schema(model: Model) -> pa.Schema:
    """Returns the columns and types of a model's data, followed by those of its contexts."""
    rows, context = torch.zeros(0, *model.flow.event_shape), torch.zeros(0, model.flow.context)
    return widened(table(model, rows, context if model.context else None).schema, model)


def widened(schema: pa.Schema, model: Model) -> pa.Schema:
    """Returns a schema in which the integers of a model have 64 bits, which hold all samples."""
    names = {column.name for column in model.columns or () if column.kind == "integer"}
    for place, field in enumerate(schema):
        if field.name in names and pa.types.is_integer(field.type):
            schema = schema.set(place, field.with_type(pa.int64()))
    return schema


def table(
    model: Model, rows: Tensor, context: Tensor | None = None, *, first: int = 0
) -> pa.Table:
    """Returns rows with shape (N, *event) in the columns and types of a model's data.

    Columns that the model leaves out are restored: constants, linear functions, and identifiers,
    which are numbered from ``first`` on. The columns of contexts with shape (N, C) follow.

    Raises:
        StageFailed: If a row is not finite.
    """
    x = rows.flatten(1).double().numpy()
    if not np.isfinite(x).all():
        raise StageFailed(f"{model.label}: its inverse overflows, as of a flow that broke apart")
    found = _arrays(model, x) if model.columns is None else decoded(model.columns, x, first)
    if context is None or model.context is None:
        return found
    return with_contexts(found, model.context, context)


def with_contexts(found: pa.Table, columns: Columns, context: Tensor) -> pa.Table:
    """Returns a table followed by the columns of contexts with shape (N, C)."""
    beside = decoded(columns, columns.from_one_hot(context.double().numpy()))
    for field, column in zip(beside.schema, beside.columns, strict=True):
        found = found.append_column(field, column)
    return found


def decoded(columns: Columns, x: np.ndarray, first: int = 0) -> pa.Table:
    """Returns the table of numbers with shape (N, D)."""
    shifted = [
        replace(c, value=c.value + first)
        if c.dropped == "identifier" and c.value is not None
        else c
        for c in columns
    ]
    frame = Columns(shifted, columns.library).decode(x)
    if isinstance(frame, np.ndarray):
        frame = {f"x{k + 1}": column for k, column in enumerate(frame.T)}
    found = frame.to_arrow() if hasattr(frame, "to_arrow") else pa.table(frame)
    fields = (
        field.with_metadata({"unit": column.unit}) if column.unit else field
        for field, column in zip(found.schema, columns, strict=True)
    )
    return found.cast(pa.schema(fields))


def _arrays(model: Model, x: np.ndarray) -> pa.Table:
    """Returns rows without names as columns x1 … xD, or as one column of fixed-size lists."""
    notes = model.arrays
    dtype = notes.get("dtype") or str(model.flow.dtype).removeprefix("torch.")
    shape, name = notes.get("shape") or model.flow.event_shape, notes.get("column")
    if np.issubdtype(dtype, np.integer):
        x = np.clip(np.round(x), np.iinfo(dtype).min, np.iinfo(dtype).max)
    x = x.astype(dtype).reshape(len(x), *shape)
    one_list = name is not None or len(shape) > 1
    return array_table(x, notes.get("levels"), one_list=one_list, name=name or "image")


def examples(model: Model, rows: Tensor, context: Tensor | None) -> "pd.DataFrame | np.ndarray":
    """Returns rows for MLflow: in a frame, or with shape (N, D) if they have no names.

    Categories and times are text, because MLflow's signatures have no such types.
    """
    found = table(model, rows, context)
    if model.columns is None and context is None:
        if len(found.columns) > 1:
            return np.stack([column.to_numpy() for column in found.columns], 1)
        return np.stack(found[0].to_numpy())
    as_text = (pa.types.is_dictionary, pa.types.is_temporal)
    fields = [
        field.with_type(pa.string()) if any(kind(field.type) for kind in as_text) else field
        for field in found.schema
    ]
    return found.cast(pa.schema(fields)).to_pandas()


def check_output(
    output: Path, suffixes: Sequence[str] = FORMATS, sources: Sequence[str] = ()
) -> None:
    """Raises BadInput unless a file has one of the suffixes, may be written, and is no source."""
    folder = output.absolute().parent
    if output.suffix not in suffixes:
        expected = f"a file that ends in {' or '.join(suffixes)}"
        raise BadInput(option="--output", found=output, expected=expected)
    if not folder.is_dir():
        raise BadInput(option="--output", found=f"no folder {folder}", expected="one: make it")
    if output.is_dir():
        raise BadInput(option="--output", found=f"the folder {output}", expected="a file")
    for source in map(Path, sources):
        files = {file.resolve() for file in (source, *source.glob("*.parquet"))}
        if files & {output.resolve(), folder.resolve()}:
            expected = "another file or folder: it would replace or join the rows that are read"
            raise BadInput(option="--output", found=f"{output} in {source}", expected=expected)
    check_writable("--output", folder)


def write(output: Path, tables: Iterator[pa.Table]) -> None:
    """Writes tables of one schema into a Parquet or CSV file, which is complete or absent.

    Raises:
        BadInput: If a CSV file would have to hold lists.
    """
    first, is_csv = next(tables), output.suffix == ".csv"
    if is_csv and any(map(pa.types.is_nested, first.schema.types)):
        raise BadInput(option="--output", found=output, expected=".parquet, which can hold lists")
    writer_of = CSVWriter if is_csv else pq.ParquetWriter
    with drafted(output) as draft, writer_of(draft, first.schema) as writer:
        for each in chain([first], tables):
            writer.write_table(each)
