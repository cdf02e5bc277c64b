"""The schema of a table: which columns are modelled, as numbers, and how a table is restored.

``Columns.encode`` turns a frame into float64 numbers with shape (N, D), one for each column that
is modelled, NaN where a value is missing. ``Columns.decode`` turns such numbers into a frame of
the same library, with the same names and types. A category is the code 0 … K − 1 of its level; a
time is a number of days or seconds since 1970. Columns that carry no density of their own are not
modelled, but restored: constants, identifiers, and exact linear functions of other columns.
"""

import dataclasses
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from . import frames
from .column import SHOWN, Column
from .frames import ArrayLike, Series, columns_of, is_positional, key, library_of, read


class Columns(Sequence[Column]):
    """The columns of a table, in order; ``print`` shows what is done to each.

    Arguments:
        library: The frame library that ``decode`` writes.
        context: The columns of the contexts of a conditional flow; None: it has none.
        notes: JSON-able facts about the data for readers of files.

    Example:
        >>> from ebflow.tables import detect_columns
        >>> columns = detect_columns({"a": [1.5, 2.0, 4.0, 4.5], "b": ["u", "v", "u", "u"]})
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

    def __getitem__(self, index: int | slice) -> Column | tuple[Column, ...]:
        return self._columns[index]

    def __len__(self) -> int:
        return len(self._columns)

    @classmethod
    def of_numbers(cls, names: Iterable[str]) -> "Columns":
        """Returns columns of real numbers."""
        return cls(Column(name, "number", "float64") for name in names)

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
    def width(self) -> int:
        """The number D of columns that are modelled."""
        return len(self.modelled)

    @property
    def sizes(self) -> list[int]:
        """The number K of codes of each category that is modelled, 0 for other columns."""
        return [column.size for column in self.modelled]

    @property
    def names_contexts(self) -> bool:
        """True if rows and contexts both have names, and not only positions."""
        return self.context is not None and "numpy" not in (self.library, self.context.library)

    def encode(self, frame: ArrayLike, what: str = "x", first: int = 0) -> np.ndarray:
        """Returns float64 numbers with shape (N, D), NaN where a value is missing.

        Columns of a frame go by their names; other columns are ignored. An array has all columns
        of the table, or those that are modelled, in order. ``what`` and the number of the
        ``first`` row are for messages.

        Raises:
            ValueError: if a column is missing, or a value cannot be read as its column's kind.
        """
        numbers = self._numbers(frame, what, first)
        if lacking := [name for name in self.features if name not in numbers]:
            raise ValueError(
                f"{what}: found no column {', '.join(lacking[:SHOWN])}, "
                f"expected all of {', '.join(self.features)}{_hint(frame)}"
            )
        for column in self:
            if column.terms and column.name in numbers:
                column.complete(numbers)
        return np.stack([numbers[name] for name in self.features], 1)

    def confirmed(self, frame: ArrayLike) -> "Columns":
        """Returns the columns; those that are no linear functions in these rows are modelled.

        ``Detector`` finds functions of the complete rows; other rows may contradict them.
        """
        numbers = self._numbers(frame, "x", 0)
        changed = [dataclasses.replace(c, dropped="", terms={}, offset=0.0)
                   if c.terms and not c.follows(numbers) else c for c in self]  # fmt: skip
        return Columns(changed, self.library, self.context, self.notes)

    def decode(self, numbers: np.ndarray, contexts: np.ndarray | None = None) -> ArrayLike:
        """Returns numbers with shape (N, D) as a frame of the table's library.

        A code is rounded. Rare levels are sampled by a seed that depends on the numbers. The
        columns of ``contexts``, with shape (N, C) as of ``one_hot``, follow those of the table.
        """
        series, columns = self._decoded(numbers), [*self]
        if contexts is not None and self.names_contexts:
            series |= self.context._decoded(self.context.from_one_hot(contexts))
            columns += self.context
        return frames.write(self.library, {c.key: series[c.name] for c in columns})

    def fill(self, frame: ArrayLike, numbers: np.ndarray) -> ArrayLike:
        """Returns a frame with its missing values replaced by those of numbers (N, D).

        All other values, and columns that are no part of the table, stay as they are. Columns of
        another kind than the table's, such as text in place of numbers, get its type.
        """
        own, decoded = self.named(frame), self._decoded(numbers)
        text = {"arrow": "string", "polars": "String"}.get(library_of(frame), "object")
        return frames.replaced(frame, {
            c.name: c.filled(read(own[c.name], c.name), decoded[c.name], text)
            for c in self if c.name in own
        })  # fmt: skip

    def one_hot(self, numbers: np.ndarray, frame: ArrayLike = None) -> np.ndarray:
        """Returns numbers (*batch, D) as contexts (*batch, C): each code as K zeros and ones.

        Messages quote the frame from which the numbers are, if any.

        Raises:
            ValueError: if a level is unknown.
        """
        parts = []
        for k, size in enumerate(self.sizes):
            values = numbers[..., k, None]
            if size:
                if (unknown := (values >= size).reshape(-1)).any():
                    column, row = self.modelled[k], int(unknown.argmax())
                    value = ""
                    if hasattr(frame, "columns"):  # a table of any library
                        found = read(self.named(frame)[column.name], column.name).objects[row]
                        value = f" {found!r}"
                    known = [*map(key, column.levels[: 2 * SHOWN]), *["…"] * (size > 2 * SHOWN)]
                    raise ValueError(
                        f"context, row {row}, column {column.name!r}: found an unknown level"
                        f"{value}, expected one of {', '.join(known)}"
                    )
                values = np.where(np.isnan(values), np.nan, values == np.arange(size))
            parts.append(values)
        return np.concatenate(parts, -1)

    def from_one_hot(self, elements: np.ndarray) -> np.ndarray:
        """Returns the numbers (N, D) of contexts (N, C): codes of the likeliest levels."""
        parts = np.split(elements, np.cumsum([size or 1 for size in self.sizes])[:-1], axis=1)
        pairs = zip(self.sizes, parts, strict=True)
        return np.stack([part.argmax(1) if size else part[:, 0] for size, part in pairs], 1)

    @property
    def elements(self) -> list[str]:
        """The names of the columns of the C elements of ``one_hot``."""
        return [column.name for column in self.modelled for _ in range(column.size or 1)]

    def to_dict(self) -> dict[str, Any]:
        """Returns the columns, JSON-able."""
        columns = [dataclasses.asdict(column) for column in self]
        context = self.context.to_dict() if self.context else None
        return {"library": self.library, "columns": columns, "context": context,
                "notes": self.notes}  # fmt: skip

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
        rows += [(c.label, c.dtype[:30], f"context: {c.describe()}") for c in self.context or ()]
        name, kind = (max(len(row[k]) for row in rows) for k in range(2))
        return "\n".join(f"{row[0]:<{name}}  {row[1]:<{kind}}  {row[2]}" for row in rows)

    def __repr__(self) -> str:
        return f"Columns({len(self)} columns, {self.width} modelled; print() shows them)"

    def exceptions(self, frame: ArrayLike) -> list[tuple[Column, np.ndarray, np.ndarray]]:
        """Returns each constant and linear function in the frame, and the rows that differ.

        Each has its column, True for rows that differ with shape (N,), and the expected numbers.
        """
        numbers = self._numbers(frame, "x", 0, ("", "linear", "constant"))
        return [(c, *c.against(numbers)) for c in self if c.dropped and c.name in numbers]

    def named(self, frame: ArrayLike, what: str = "x") -> dict[str, Any]:
        """Returns the columns of a frame by name; by position those of arrays, and if it is one's.

        Raises:
            ValueError: if an array has another number of columns.
        """
        columns = columns_of(frame, what)
        if not is_positional(frame) and self.library != "numpy":
            return columns
        names = self.names if len(columns) == len(self) else self.features
        if len(columns) != len(names):
            found = f"{len(columns)} column{'s' * (len(columns) != 1)}"
            expected = f"{len(self)}: {', '.join(self.names[: SHOWN * 2])}{_hint(frame)}"
            raise ValueError(f"{what}: found {found}, expected {expected}")
        return dict(zip(names, columns.values(), strict=True))

    def _numbers(
        self, frame: ArrayLike, what: str, first: int, used: Sequence[str] = ("", "linear")
    ) -> dict[str, np.ndarray]:
        """Returns the numbers of a frame's columns, by name, if ``dropped`` is one of ``used``."""
        columns = self.named(frame, what)
        return {c.name: c.encode(read(columns[c.name], c.name, what), what, first)
                for c in self if c.name in columns and c.dropped in used}  # fmt: skip

    def _decoded(self, numbers: np.ndarray) -> dict[str, Series]:
        """Returns the values of all columns."""
        numbers = np.ascontiguousarray(numbers, np.float64)
        random = np.random.default_rng(zlib.crc32(numbers))
        # Linear functions are those of the rounded values, which the frame will have.
        values = {c.name: own if c.decimals is None else np.round(own, c.decimals)
                  for c, own in zip(self.modelled, numbers.T, strict=True)}  # fmt: skip
        for column in self:
            if column.dropped:
                values[column.name] = column.restored(values, len(numbers))
        return {c.name: c.decode(values[c.name], random) for c in self}


def _hint(frame: ArrayLike) -> str:
    """Returns how to select a row, if the frame is a Series of pandas."""
    is_series = library_of(frame) == "pandas" and not hasattr(frame, "columns")
    return ". A Series is one column; frame.iloc[[0]] is a row" * is_series
