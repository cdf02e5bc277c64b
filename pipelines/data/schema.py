"""The descriptions of a source's columns: detected from all rows, and used to encode them."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ebflow.errors import BadInput
from ebflow.tables import Columns, Detector
from pipelines.data.layout import Layout
from pipelines.data.messages import Place, as_bad_input, listed

# A function that reads columns of all rows, by their names.
Batches = Callable[[Sequence[str]], Iterable[tuple[pa.RecordBatch, Place]]]


class Schemas(NamedTuple):
    """The descriptions of a source's columns.

    Arguments:
        data: The columns of a table; None: the data are fixed-size lists.
        context: The columns of contexts; None: there are none.
    """

    data: Columns | None
    context: Columns | None


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


def encoded(
    columns: Columns,
    frame: pa.RecordBatch | pa.Table,
    place: Place,
    *,
    missing: bool = False,
    new_levels: bool = False,
    used: np.ndarray | None = None,
    remedy: str = "",
) -> np.ndarray:
    """Returns the numbers of a frame's columns, with shape (B, D), after checking them.

    Arguments:
        columns: The descriptions of the columns.
        frame: The rows.
        place: Their place.
        missing: True if missing values are allowed; they are NaN.
        new_levels: True if unknown levels are allowed; they have the code K.
        used: The rows that are checked, with shape (B,); None: all.
        remedy: The end of a message about a missing value.

    Raises:
        BadInput: at a value that is missing, not finite or not a known level.
    """
    with as_bad_input():
        x = columns.encode(frame, what=place.file, first=place.first)
    known = [c.kind == "category" and not new_levels for c in columns.modelled]
    sizes = [c.size if k else np.inf for c, k in zip(columns.modelled, known, strict=True)]
    for row, k in first_used(not_finite(x, missing=missing) | (x >= sizes), used):
        column = columns.modelled[k]
        expected = "a finite number"
        if column.kind == "category":
            expected = f"a known level: {listed([*map(str, column.levels)], 8)}"
        value = frame.column(column.name)[row].as_py()
        raise place.bad(row, column.name, value, expected + remedy * bool(np.isnan(x[row, k])))
    return x


def not_finite(x: np.ndarray, *, missing: bool) -> np.ndarray:
    """Marks the numbers that are infinite, or NaN unless values may be missing."""
    return np.isinf(x) if missing else ~np.isfinite(x)


def first_used(bad: np.ndarray, used: np.ndarray | None) -> Iterator[tuple[int, int]]:
    """Yields the row and the column of the first bad value, if any, in the rows that are used."""
    if used is not None:
        bad = bad & used[:, None]
    if bad.any():
        yield divmod(int(np.argmax(bad)), bad.shape[1])
