"""A source for a trained flow: columns by their names, arrays by position, either checked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebflow.data.layout import Layout, check_kinds
from ebflow.data.named import SOURCES
from ebflow.data.sources import Opened, Reader, find_source
from ebflow.errors import BadInput
from pipelines.answers.models import Model


@dataclass(frozen=True)
class Match:
    """A source whose columns are those of a model, in the model's order.

    Arguments:
        reader: The source.
        unused: Its columns that the model does not know.
    """

    reader: Reader
    unused: tuple[str, ...]

    @property
    def summary(self) -> str:
        """A line on what is read of the source."""
        rows = f"{self.reader.label}: {self.reader.rows} rows"
        return f"{rows}; columns not used: {', '.join(self.unused)}" if self.unused else rows


def match(source: str | Path, model: Model) -> Match:
    """Opens a source, as ``run density`` does, by the columns of a model.

    A model of a table takes columns by their names; one of arrays, and of rows without names,
    takes a source of its width.

    Raises:
        BadInput: If there is no such source, or its columns are not the model's.
    """
    found, names, context = _opened(source, model), model.names, model.given.get("names", ())
    _check_names(found, context, model)
    if names is None or (found.positional and not context):
        reader = found.reader(context=context)
        _check_like(reader, model)
    else:
        _check_names(found, names, model)
        unit = model.columns.get("timestamps")
        reader = found.reader(
            columns=names, categories=model.categories, context=context, timestamps=unit
        )
    _check_units(reader.layout, model)
    check_kinds(reader.layout.given, model.given.get("levels", ()), label=reader.label)
    known = (*(names or found.schemas[0].names), *context)
    return Match(reader, tuple(n for n in found.schemas[0].names if n not in known))


def _opened(source: str | Path, model: Model) -> Opened:
    """Opens a source; images of a folder are scaled as those of the model."""
    folder = Path(source).is_dir() and source not in SOURCES
    return find_source(source, model.columns.get("resize") if folder else None)


def _check_names(found: Opened, names: Sequence[str], model: Model) -> None:
    missing = [name for name in names if name not in found.schemas[0].names]
    if missing:
        raise BadInput(
            f"{found.label}: found no column {', '.join(missing[:8])}, expected all columns of "
            f"{model.label}: {', '.join(names)}"
        )


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
    known = {**_units(model.columns), **_units(model.given)}
    names, units = (*layout.columns, *layout.given.names), (*layout.units, *layout.given.units)
    for name, found in zip(names, units, strict=True):
        unit = known.get(name)
        if found and unit and found != unit:
            raise BadInput(
                f"column {name}: found the unit {found}, expected {unit}, as of {model.label}: "
                "convert it"
            )


def _units(known: Mapping[str, Any]) -> dict[str, str]:
    return dict(zip(known.get("names") or (), known.get("units") or (), strict=False))
