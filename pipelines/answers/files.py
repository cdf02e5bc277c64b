"""The file that an answer goes to, in the source's own columns and types."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from ebflow import files
from ebflow.data import Levels, split
from ebflow.data.formats import arrays_schema, times
from pipelines.answers.models import Model
from pipelines.errors import StageFailed

if TYPE_CHECKING:
    import pandas as pd

INTEGERS = {str(kind()) for kind in (pa.int8, pa.int16, pa.int32, pa.int64, pa.uint8, pa.uint16,
                                     pa.uint32, pa.uint64)}  # fmt: skip


def schema(model: Model) -> pa.Schema:
    """Returns the schema of the data that a model was trained on, as its checkpoint knows it.

    Its contexts' columns stand behind.
    """
    fields = [*_data_schema(model), *_context_schema(model)]
    return pa.schema(fields, metadata=_data_schema(model).metadata)


def _context_schema(model: Model) -> pa.Schema:
    """Returns the columns of contexts; categories are text, or the integers that they were."""
    names, levels = (model.given.get(key, ()) for key in ("names", "levels"))
    types = model.given.get("types") or ["double"] * len(names)
    plain = (known is None or kind in INTEGERS for kind, known in zip(types, levels, strict=True))
    kinds = (pa.type_for_alias(t) if p else pa.string() for t, p in zip(types, plain, strict=True))
    return pa.schema(list(zip(names, kinds, strict=True)))


def _data_schema(model: Model) -> pa.Schema:
    known = model.columns
    shape = known.get("shape") or model.flow.event_shape
    dtype = known.get("dtype") or str(model.flow.like.dtype).removeprefix("torch.")
    if model.names is None:
        one_list = known.get("column") is not None or len(shape) > 1
        name = known.get("column") or "image"
        return arrays_schema(shape, dtype, known.get("levels"), one_list=one_list, name=name)
    types = known.get("types") or [dtype] * len(model.names)
    units = known.get("units") or [None] * len(model.names)
    return pa.schema(
        [
            pa.field(name, _type(kind), metadata={"unit": unit} if unit else None)
            for name, kind, unit in zip(model.names, types, units, strict=True)
        ]
    )


def columns_table(model: Model, rows: Tensor, context: Tensor | None = None) -> pa.Table:
    """Returns rows with shape (N, *event) in the columns and types of a model's data.

    What a column of integers cannot hold is rounded, or the nearest that it can. Their contexts,
    with shape (N, C), stand behind.

    Raises:
        StageFailed: If a row is not finite.
    """
    table = _data_table(model, rows)
    if context is None:
        return table
    kinds, levels = _context_schema(model), model.given["levels"]
    columns = _columns(context.double().numpy(), kinds, levels)
    for field, column in zip(kinds, columns, strict=True):
        table = table.append_column(field, column)
    return table


def examples(model: Model, rows: Tensor, context: Tensor | None) -> "pd.DataFrame | np.ndarray":
    """Returns rows as MLflow is shown them: in a frame, or with shape (N, D) without names.

    Categories are text, of which alone MLflow's signatures know.
    """
    table = columns_table(model, rows, context)
    if model.names is not None or context is not None:
        kinds = [pa.string() if pa.types.is_dictionary(f.type) else f.type for f in table.schema]
        return table.cast(pa.schema(zip(table.column_names, kinds, strict=True))).to_pandas()
    if len(table.columns) > 1:
        return np.stack([column.to_numpy() for column in table.columns], 1)
    return np.stack(table[0].to_numpy())


def _columns(
    x: np.ndarray, kinds: pa.Schema, levels: Levels, unit: str | None = None
) -> Iterator[pa.Array]:
    """Yields the columns of rows with shape (N, D), in which categories are one-hot."""
    for field, column, known in zip(kinds, split(x, levels), levels, strict=True):
        if known is None:
            yield _typed(column, field.type, unit)
        else:
            yield _named(column, known, field.type)


def _named(numbers: np.ndarray, levels: Sequence[str], kind: pa.DataType) -> pa.Array:
    """Returns levels by their numbers, with shape (N,), as a type of text or a dictionary."""
    if not pa.types.is_dictionary(kind):
        return pa.array(levels).take(pa.array(numbers)).cast(kind)
    values = pa.array(levels).cast(kind.value_type)
    places = pa.array(numbers.astype(kind.index_type.to_pandas_dtype()))
    return pa.DictionaryArray.from_arrays(places, values, ordered=kind.ordered)


def _data_table(model: Model, rows: Tensor) -> pa.Table:
    x, kinds = rows.reshape(len(rows), -1).double().numpy(), _data_schema(model)
    if not np.isfinite(x).all():
        raise StageFailed(f"{model.label}: its inverse overflows, as of a flow that broke apart")
    if model.names is None and pa.types.is_fixed_size_list(kinds.field(0).type):
        flat = _typed(x.reshape(-1), kinds.field(0).type.value_type)
        lists = pa.FixedSizeListArray.from_arrays(flat, type=kinds.field(0).type)
        return pa.table([lists], schema=kinds)
    unit = model.columns.get("timestamps")
    levels = model.categories or [None] * len(kinds)
    return pa.table(list(_columns(x, kinds, levels, unit)), schema=kinds)


def _type(name: str) -> pa.DataType:
    """Returns Arrow's type of a name, which has no alias if it is a dictionary or has a zone."""
    if found := re.fullmatch(r"dictionary<values=(\w+), indices=(\w+), ordered=(\d)>", name):
        kinds = (pa.type_for_alias(alias) for alias in (found[2], found[1]))
        return pa.dictionary(*kinds, ordered=found[3] == "1")
    if found := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", name):
        return pa.timestamp(found[1], tz=found[2])
    return pa.type_for_alias(name)


def _typed(values: np.ndarray, kind: pa.DataType, unit: str | None = None) -> pa.Array:
    if pa.types.is_temporal(kind):
        return times(values, kind, unit)
    if pa.types.is_boolean(kind):
        return pa.array(values >= 0.5)
    if not pa.types.is_integer(kind):
        return pa.array(values).cast(kind)
    ends = np.iinfo(kind.to_pandas_dtype())
    inside = np.clip(np.round(values), float(ends.min), np.nextafter(float(ends.max), 0))
    return pa.array(inside.astype(kind.to_pandas_dtype()))


def write(output: Path, kinds: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Writes tables of one schema into a file, which is there when it is whole."""
    with files.drafted(output) as draft, pq.ParquetWriter(draft, kinds) as writer:
        for table in tables:
            writer.write_table(table)
