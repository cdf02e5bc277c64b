"""A source of rows for a trained flow: columns by their names, checked."""

__all__ = ["batches", "context_codes", "match"]

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ebflow.errors import BadInput
from ebflow.tables import Column, Columns
from ebflow.tables.batches import Batch
from pipelines.data.files import Part
from pipelines.data.messages import listed
from pipelines.data.reader import Reader
from pipelines.data.schema import Schemas, encoded
from pipelines.data.sources import find_source
from pipelines.inference.models import Model


def match(source: str | Path, model: Model, *, missing: str | None = None) -> Reader:
    """Opens a source, as ``run density`` does, by the columns of a model.

    Columns go by their names; only those of a model of arrays go by position.

    Raises:
        BadInput: If there is no such source, or its columns are not the model's.
    """
    found, data, columns = find_source(source), model.columns, None
    context = [] if model.context is None else model.context.features
    if data is not None:
        present = set(found.parts[0].schema.names)
        columns = [c.name for c in data if not c.dropped or (c.terms and c.name in present)]
    for part in found.parts:
        _expect(part, [*(data.features if data else ()), *context])
    schemas = Schemas(data, model.context)
    reader = found.reader(columns, missing=missing, context=context, flow_schemas=schemas)
    if data is None:
        reader = _as_array(reader, model)
    _check_units(reader, schemas)
    return reader


def batches(reader: Reader) -> Iterator[Batch]:
    """Yields all rows of a source in order, with their contexts."""
    for x, _, context in reader.batches():
        yield Batch(torch.tensor(x), None if context is None else torch.from_numpy(context))


def context_codes(source: str | Path, columns: Columns) -> np.ndarray:
    """Returns the numbers of a source's columns of contexts, with shape (N, K).

    Raises:
        BadInput: If a column is missing, or a value is not one of its column's.
    """
    codes = [np.empty((0, columns.width))]
    for part in find_source(source).parts:
        _expect(part, columns.features)
        codes += [encoded(columns, *each) for each in part.batches(columns.features, 1 << 20)]
    return np.concatenate(codes)


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
