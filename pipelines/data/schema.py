"""The descriptions of a source's columns, detected from all rows."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa

from ebflow.errors import BadInput
from ebflow.tables import Columns, Detector
from pipelines.data.layout import Layout
from pipelines.data.messages import Place, as_bad_input

# A function that reads columns of all rows, by their names.
Batches = Callable[[Sequence[str]], Iterable[tuple[pa.RecordBatch, Place]]]


class Schemas(NamedTuple):
    """The descriptions of a source's columns."""

    data: Columns | None  #: The columns of a table; None: the data are fixed-size lists
    context: Columns | None  #: The columns of contexts; None: there are none


def detect(layout: Layout, batches: Batches, *, label: str) -> Schemas:
    """Returns the descriptions of a source's columns; reads all of its rows.

    Raises:
        BadInput: if a type is not supported, no column varies or a context does not vary.
    """
    table = None if layout.lists else Detector(layout.columns, what=label, units={**layout.units})
    contexts = Detector(layout.context, context=True, what=label) if layout.context else None
    names = (*(() if table is None else layout.columns), *layout.context)
    with as_bad_input():
        for batch, place in batches(names) if names else ():
            if table is not None:
                table.update(batch, *place)
            if contexts is not None:
                contexts.update(context_frame(batch, layout), *place)
        data = table and table.finish()
        for batch, _ in batches(names) if data and any(c.terms for c in data) else ():
            data = data.confirmed(batch)
        context = contexts and _classes_sorted(contexts.finish(), layout)
    if data is not None and not data.width:
        raise BadInput(file=label, found="no column whose values vary", expected="some")
    for column in context or ():
        if column.dropped:
            place = {"file": label, "column": column.name}
            expected, hint = "a context whose values vary", "Choose others by --data.context"
            raise BadInput(column.describe(), **place, expected=expected, hint=hint)
    return Schemas(data, context)


def context_frame(batch: pa.RecordBatch, layout: Layout) -> pa.Table:
    """Returns the columns of contexts; classes are a category, whatever their type."""
    columns = {name: batch.column(name) for name in layout.context}
    if (label := layout.label) in columns and not pa.types.is_dictionary(layout.types[label]):
        columns[label] = columns[label].dictionary_encode()
    return pa.table(columns)


def _classes_sorted(context: Columns, layout: Layout) -> Columns:
    """Returns contexts in which all classes are levels, in their order, of their own type."""
    columns = list(context)
    for k, column in enumerate(columns):
        if column.name == layout.label:
            changes = {"levels": tuple(sorted(column.categories)), "categories": (), "rare": {}}
            dtype = str(layout.types[column.name])
            columns[k] = dataclasses.replace(column, dtype=dtype, **changes)
    return Columns(columns, context.library)
