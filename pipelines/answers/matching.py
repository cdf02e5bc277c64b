"""A source for a trained flow: columns by their names, arrays by position, either checked."""

import math
from pathlib import Path

import torch

from ebflow.errors import BadInput
from ebflow.tables.batches import Batch
from ebflow.tables.levels import expanded
from pipelines.answers.models import Model
from pipelines.data.layout import Layout, check_kinds
from pipelines.data.named import SOURCES
from pipelines.data.sources import Reader, find_source


def match(source: str | Path, model: Model) -> Reader:
    """Opens a source, as ``run density`` does, by the columns of a model, in the model's order.

    A model of a table takes columns by their names; one of arrays, and of rows without names,
    takes a source of its width. Images of a folder are scaled as those of the model.

    Raises:
        BadInput: If there is no such source, or its columns are not the model's.
    """
    folder = Path(source).is_dir() and source not in SOURCES
    found = find_source(source, model.columns.get("resize") if folder else None)
    context = tuple(model.given.get("names", ()))
    positional = model.names is None or (found.positional and not context)
    needed = context if positional else (*model.names, *context)
    if missing := [name for name in needed if name not in found.schemas[0].names]:
        raise BadInput(
            f"{found.label}: found no column {', '.join(missing[:8])}, expected all columns of "
            f"{model.label}: {', '.join(needed)}"
        )
    if positional:
        reader = found.reader(context=context)
        _check_like(reader, model)
    else:
        chosen = {"categories": model.categories, "timestamps": model.columns.get("timestamps")}
        reader = found.reader(columns=model.names, context=context, **chosen)
    _check_units(reader.layout, model)
    check_kinds(reader.layout.given, model.given.get("levels", ()), label=reader.label)
    return reader


def summary(reader: Reader) -> str:
    """Returns a line on what is read of a source."""
    names = reader.parts[0].schema.names
    unused = ", ".join(name for name in names if name not in reader.layout.reads)
    rows = f"{reader.label}: {reader.rows} rows"
    return f"{rows}; columns not used: {unused}" if unused else rows


def rows(reader: Reader, model: Model, first: int, last: int, *, missing: bool = False) -> Batch:
    """Returns rows ``first`` … ``last`` − 1 of a matched source, and their contexts.

    With ``missing``, a null or NaN of real data is taken, as NaN.
    """
    x = torch.from_numpy(reader.window(first, last, missing=missing))
    if not model.given:
        return Batch(x, None)
    levels = model.given["levels"]
    stored = reader.contexts(first, last, levels)
    return Batch(x, torch.from_numpy(expanded(stored, levels)))


def _check_like(reader: Reader, model: Model) -> None:
    """Raises BadInput unless a source without names has a model's width and levels."""
    layout, width = reader.layout, math.prod(model.flow.event_shape)
    if layout.width != width:
        raise BadInput(
            f"{reader.label}: found {layout.width} values a row, expected {width}, as of "
            f"{model.label}"
        )
    levels = model.columns.get("levels")
    if layout.levels != levels:
        kinds = [f"{n} integer levels" if n else "real numbers" for n in (layout.levels, levels)]
        raise BadInput(
            f"{reader.label}: found {kinds[0]}, expected {kinds[1]}, as of {model.label}"
        )


def _check_units(layout: Layout, model: Model) -> None:
    for columns, known in ((layout.data, model.columns), (layout.given, model.given)):
        units = known.get("units") or [None] * len(columns.names)
        for name, found, unit in zip(columns.names, columns.units, units, strict=True):
            if found and unit and found != unit:
                raise BadInput(
                    f"column {name}: found the unit {found}, expected {unit}, as of "
                    f"{model.label}: convert it"
                )
