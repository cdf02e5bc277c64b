"""Rows of a trained flow as tables, in the source's own columns and types."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from ebflow import files
from ebflow.tables.levels import Levels, split
from pipelines.answers.models import Model
from pipelines.data.formats import arrays_schema, times
from pipelines.errors import StageFailed

if TYPE_CHECKING:
    import pandas as pd


def schema(model: Model) -> pa.Schema:
    """Returns the schema of the data that a model was trained on, as its checkpoint knows it.

    Its contexts' columns stand behind; of these, categories are text, or the integers that they
    were.
    """
    found, given = _data_schema(model), model.given
    names, levels = given.get("names", ()), given.get("levels", ())
    types = given.get("types") or ["double"] * len(names)
    for name, kind, known in zip(names, map(_type, types), levels, strict=True):
        plain = known is None or pa.types.is_integer(kind)
        found = found.append(pa.field(name, kind if plain else pa.string()))
    return found


def _data_schema(model: Model) -> pa.Schema:
    known = model.columns
    dtype = known.get("dtype") or str(model.flow.dtype).removeprefix("torch.")
    if model.names is None:
        shape, name = known.get("shape") or model.flow.event_shape, known.get("column")
        one_list = name is not None or len(shape) > 1
        levels = known.get("levels")
        return arrays_schema(shape, dtype, levels, one_list=one_list, name=name or "image")
    types = known.get("types") or [dtype] * len(model.names)
    units = known.get("units") or [None] * len(model.names)
    notes = ({"unit": unit} if unit else None for unit in units)
    parts = zip(model.names, map(_type, types), notes, strict=True)
    return pa.schema([pa.field(name, kind, metadata=note) for name, kind, note in parts])


def _type(name: str) -> pa.DataType:
    """Returns Arrow's type of a name, which has no alias if it is a dictionary or has a zone."""
    if found := re.fullmatch(r"dictionary<values=(\w+), indices=(\w+), ordered=(\d)>", name):
        kinds = (pa.type_for_alias(alias) for alias in (found[2], found[1]))
        return pa.dictionary(*kinds, ordered=found[3] == "1")
    if found := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", name):
        return pa.timestamp(found[1], tz=found[2])
    return pa.type_for_alias(name)


def table(
    model: Model, rows: Tensor, context: Tensor | None = None, kinds: pa.Schema | None = None
) -> pa.Table:
    """Returns rows with shape (N, *event) in the columns and types of a model's data, or others.

    What a column of integers cannot hold is rounded, or the nearest that it can. Their contexts,
    with shape (N, C), stand behind.

    Raises:
        StageFailed: If a row is not finite.
    """
    x, kinds = rows.reshape(len(rows), -1).double().numpy(), kinds or schema(model)
    if not np.isfinite(x).all():
        raise StageFailed(f"{model.label}: its inverse overflows, as of a flow that broke apart")
    given = model.given.get("levels", ())
    own, beside = list(kinds)[: len(kinds) - len(given)], list(kinds)[len(kinds) - len(given) :]
    if pa.types.is_fixed_size_list(own[0].type):
        flat = _numbers(x.reshape(-1), own[0].type.value_type)
        columns = [pa.FixedSizeListArray.from_arrays(flat, type=own[0].type)]
    else:
        levels = model.categories or [None] * len(own)
        columns = list(_columns(x.T, own, levels, model.columns.get("timestamps")))
    if context is not None:
        columns += _columns(split(context.double().numpy(), given), beside, given)
    return pa.table(columns, schema=kinds)


def _columns(
    stored: Iterable[np.ndarray],
    fields: Sequence[pa.Field],
    levels: Levels,
    unit: str | None = None,
) -> Iterator[pa.Array]:
    """Yields columns (N,) of numbers, and of codes, in the types of their fields."""
    for field, column, known in zip(fields, stored, levels, strict=True):
        if known is None:
            yield _numbers(column, field.type, unit)
        else:
            yield _categories(column, known, field.type)


def _numbers(values: np.ndarray, kind: pa.DataType, unit: str | None = None) -> pa.Array:
    if pa.types.is_temporal(kind):
        return times(values, kind, unit)
    if pa.types.is_boolean(kind):
        return pa.array(values >= 0.5)
    if not pa.types.is_integer(kind):
        return pa.array(values).cast(kind)
    ends = np.iinfo(kind.to_pandas_dtype())
    inside = np.clip(np.round(values), float(ends.min), np.nextafter(float(ends.max), 0))
    return pa.array(inside.astype(kind.to_pandas_dtype()))


def _categories(numbers: np.ndarray, levels: Sequence[str], kind: pa.DataType) -> pa.Array:
    """Returns levels by their codes, with shape (N,), as a type of text or a dictionary."""
    numbers = np.round(numbers).astype(np.int64)
    if not pa.types.is_dictionary(kind):
        return pa.array(levels).take(pa.array(numbers)).cast(kind)
    values = pa.array(levels).cast(kind.value_type)
    places = pa.array(numbers.astype(kind.index_type.to_pandas_dtype()))
    return pa.DictionaryArray.from_arrays(places, values, ordered=kind.ordered)


def examples(model: Model, rows: Tensor, context: Tensor | None) -> "pd.DataFrame | np.ndarray":
    """Returns rows as MLflow is shown them: in a frame, or with shape (N, D) without names.

    Categories are text, of which alone MLflow's signatures know; times are numbers, as the flow
    takes them of a frame.
    """
    kinds = pa.schema([(field.name, _shown(field.type)) for field in schema(model)])
    found = table(model, rows, context, kinds)
    if model.names is not None or context is not None:
        return found.to_pandas()
    if len(found.columns) > 1:
        return np.stack([column.to_numpy() for column in found.columns], 1)
    return np.stack(found[0].to_numpy())


def _shown(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return pa.string()
    return pa.float64() if pa.types.is_temporal(kind) else kind


def write(output: Path, kinds: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Writes tables of one schema into a file, which is there when it is whole."""
    with files.drafted(output) as draft, pq.ParquetWriter(draft, kinds) as writer:
        for some in tables:
            writer.write_table(some)
