"""The schema of a table: which columns are modelled, as numbers, and how a table is restored.

``Columns.encode`` turns a frame into float64 numbers with shape (N, D), one for each column that
is modelled, NaN where a value is missing. ``Columns.decode`` turns such numbers into a frame of
the same library, with the same names and types. A category is the code 0 … K − 1 of its level; a
time is a number of days or seconds since 1970. Columns that carry no density of their own are left
out and restored: constants, identifiers, and exact linear functions of other columns.
"""

__all__ = ["Columns"]

import dataclasses
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np

from .column import SHOWN, Column
from .frames import ArrayLike, Series, columns_of, is_positional, library_of, read, write


class Columns(Sequence[Column]):
    """The columns of a table, in order; ``print`` shows what is done to each.

    Arguments:
        columns: The columns.
        library: The frame library that ``decode`` writes.
        context: The columns of the contexts of a conditional flow; None: it has none.
        notes: What readers of files have to know beside the columns, JSON-able.

    Example:
        >>> from ebflow.tables import Columns
        >>> columns = Columns.detect({"a": [1.5, 2.0, 4.0, 4.5], "b": ["u", "v", "u", "u"]})
        >>> columns.encode({"b": ["v"], "a": [3.0]})
        array([[3., 1.]])
        >>> columns.decode(np.array([[3.04, 0.0]]))
        {'a': array([3.]), 'b': array(['u'], dtype='<U1')}
    """

    def __init__(
        self,
        columns: Iterable[Column],
        library: str = "numpy",
        context: "Columns | None" = None,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        self._columns, self.library, self.context = tuple(columns), library, context
        self.notes = dict(notes or {})

    @classmethod
    def detect(
        cls, frame: ArrayLike, names: Sequence[str] | None = None, *, context: bool = False,
        what: str = "x",
    ) -> "Columns":  # fmt: skip
        """Returns the columns of a frame, by all of its rows; see ``Detector``.

        Arguments:
            frame: The frame.
            names: The columns to use; None: all.
            context: Whether they are contexts, of which only constants are left out.
            what: The name of the frame in messages.
        """
        from .detect import Detector

        detector = Detector(names, context=context, what=what)
        detector.update(frame)
        return detector.finish().confirmed(frame)

    @overload
    def __getitem__(self, index: int) -> Column: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Column, ...]: ...
    def __getitem__(self, index: int | slice) -> Column | tuple[Column, ...]:
        return self._columns[index]

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def names(self) -> list[str]:
        """The names of all columns."""
        return [column.name for column in self]

    @cached_property
    def modelled(self) -> list[Column]:
        """The D columns that are modelled."""
        return [column for column in self if not column.dropped]

    @property
    def features(self) -> list[str]:
        """The names of the columns that are modelled."""
        return [column.name for column in self.modelled]

    @property
    def sizes(self) -> list[int]:
        """The number K of codes of each category that is modelled, 0 for other columns."""
        return [c.size if c.kind == "category" else 0 for c in self.modelled]

    @property
    def labels(self) -> list[str]:
        """The names of the columns that are modelled, with their units."""
        return [column.label for column in self.modelled]

    @property
    def width(self) -> int:
        """The number D of columns that are modelled."""
        return len(self.modelled)

    def encode(self, frame: ArrayLike, what: str = "x", first: int = 0) -> np.ndarray:
        """Returns float64 numbers with shape (N, D), NaN where a value is missing.

        Columns of a frame go by their names; other columns are ignored. An array has all columns
        of the table, or those that are modelled, in order.

        Arguments:
            frame: The frame.
            what: Its name in messages.
            first: The number of its first row in messages.

        Raises:
            ValueError: if a column is missing, or a value cannot be read as its column's kind.
        """
        columns = self._columns_of(frame, what)
        if lacking := [name for name in self.features if name not in columns]:
            raise ValueError(f"{what}: found no column {', '.join(lacking[:SHOWN])}, "
                             f"expected all of {', '.join(self.features)}")  # fmt: skip
        known = {c.name: c.encode(read(columns[c.name], c.name, what), what, first)
                 for c in self if c.name in columns and (c.terms or not c.dropped)}  # fmt: skip
        for column in self:
            if column.terms and column.name in known:
                column.complete(known)
        numbers = [known[name] for name in self.features]
        return (
            np.stack(numbers, 1) if numbers else np.empty((len(next(iter(columns.values()))), 0))
        )

    def confirmed(self, frame: ArrayLike) -> "Columns":
        """Returns the columns; those that are no linear functions in these rows are modelled.

        ``Detector`` sees the complete rows alone: rows with missing values may contradict.
        """
        columns, known = self._columns_of(frame, "x"), {}
        for c in self:
            if c.terms or not c.dropped:
                known[c.name] = c.encode(read(columns[c.name], c.name))
        changed = [dataclasses.replace(c, dropped="", terms={}, offset=0.0)
                   if c.terms and not c.follows(known) else c for c in self]  # fmt: skip
        return Columns(changed, self.library, self.context, self.notes)

    def decode(self, numbers: np.ndarray, seed: int | None = None) -> ArrayLike:
        """Returns numbers with shape (N, D) as a frame of the table's library.

        Arguments:
            numbers: The numbers; a code is rounded.
            seed: The seed by which rare levels are sampled; None: it depends on the numbers.
        """
        numbers = np.ascontiguousarray(numbers, np.float64)
        return write(self.library, self._decoded(numbers, seed))

    def _decoded(self, numbers: np.ndarray, seed: int | None) -> dict[str, Series]:
        """Returns the values of all columns."""
        random = np.random.default_rng(zlib.crc32(numbers) if seed is None else seed)
        values = dict(zip(self.features, numbers.T, strict=True))
        for column in self:
            if column.dropped:
                values[column.name] = self._restored(column, values, len(numbers))
        return {c.name: c.decode(values[c.name], random) for c in self}

    def fill(self, frame: ArrayLike, numbers: np.ndarray) -> ArrayLike:
        """Returns a frame with its missing values replaced by those of numbers (N, D).

        All other values, and columns that are no part of the table, stay as they are.
        """
        columns, library = columns_of(frame), library_of(frame)
        series = {name: read(column, name) for name, column in columns.items()}
        decoded = self._decoded(np.ascontiguousarray(numbers, np.float64), None)
        for name in series.keys() & decoded.keys():
            series[name] = series[name].filled(decoded[name])
        filled = write(library, series)
        if hasattr(frame, "index") and hasattr(filled, "set_axis"):
            return filled.set_axis(frame.index)
        return filled

    def one_hot(self, numbers: np.ndarray) -> np.ndarray:
        """Returns numbers (*batch, D) as contexts (*batch, C): each code as K zeros and ones.

        An unknown level is K zeros.
        """
        parts = []
        for k, column in enumerate(self.modelled):
            values = numbers[..., k, None]
            if column.kind == "category":
                values = np.where(np.isnan(values), np.nan, values == np.arange(column.size))
            parts.append(values)
        return np.concatenate(parts, -1)

    @property
    def elements(self) -> list[str]:
        """The names of the C elements of ``one_hot``, as ``age`` and ``region=north``."""
        return [
            name
            for c in self.modelled
            for name in (c.level_names if c.kind == "category" else [c.name])
        ]

    @property
    def context_width(self) -> int:
        """The number C of elements of ``one_hot``."""
        return sum(size or 1 for size in self.sizes)

    def to_dict(self) -> dict[str, Any]:
        """Returns the columns, JSON-able."""
        beside = {"context": self.context.to_dict()} if self.context else {}
        beside |= {"notes": self.notes} if self.notes else {}
        return {"library": self.library, "columns": [c.to_dict() for c in self], **beside}

    @classmethod
    def from_dict(cls, attributes: Mapping[str, Any]) -> "Columns":
        """Returns the columns of ``to_dict``."""
        context = attributes.get("context")
        columns = map(Column.from_dict, attributes["columns"])
        context = context and cls.from_dict(context)
        return cls(columns, attributes["library"], context, attributes.get("notes"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Columns) and self.to_dict() == other.to_dict()

    __hash__ = None

    def __str__(self) -> str:
        rows = [("column", "type", "treatment")]
        rows += [(c.label, c.dtype[:30], c.describe()) for c in self]
        if self.context:
            rows += [(c.label, c.dtype[:30], f"context: {c.describe()}") for c in self.context]
        widths = [max(len(row[k]) for row in rows) for k in range(2)]
        lines = (
            f"{name:<{widths[0]}}  {dtype:<{widths[1]}}  {text}" for name, dtype, text in rows
        )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Columns({len(self)} columns, {self.width} modelled; print() shows them)"

    def _columns_of(self, frame: ArrayLike, what: str) -> dict[str, Any]:
        """Returns the columns of a frame by name, those of an array by the table's names."""
        columns = columns_of(frame, what)
        if not is_positional(frame):
            return columns
        chosen = self if len(columns) == len(self) else self.modelled
        if len(columns) != len(chosen):
            raise ValueError(
                f"{what}: found {len(columns)} columns, expected {len(self)}: "
                f"{', '.join(self.names[: SHOWN * 2])}"
            )
        return {c.name: values for c, values in zip(chosen, columns.values(), strict=True)}

    def _restored(self, column: Column, values: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
        """Returns the numbers of a column that is not modelled, from those of the others."""
        if column.terms:
            return column.bounded(column.linear(values))
        if column.value is None:
            return np.full(rows, np.nan)
        if column.dropped == "identifier":
            return column.value + np.arange(rows, dtype=np.float64)
        if column.kind == "category":
            return np.zeros(rows)
        return np.full(rows, float(column.value))
