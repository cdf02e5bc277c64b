"""Columns of categories: which they are, their levels, the numbers of these."""

__all__ = ["MOST", "NUMBERS", "as_text", "codes", "is_text", "levels_of", "one_of"]

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import BadInput
from . import coded

MOST = 256
"""Most levels of a column of categories."""


TEXT = (pa.types.is_string, pa.types.is_large_string)
NUMBERS = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean)
"""What a column of numbers may hold."""


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is text, or a dictionary of text or of numbers."""
    if pa.types.is_dictionary(kind):
        return any(is_it(kind.value_type) for is_it in (*TEXT, *NUMBERS))
    return any(is_it(kind) for is_it in TEXT)


def as_text(column: pa.Array) -> pa.Array:
    """Returns a column's values as text, null where they are null."""
    values = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return values.cast(pa.string())


def codes(column: pa.Array, levels: Sequence[str]) -> np.ndarray:
    """Returns numbers of levels with shape (B,), −1 of nulls and of what is no level."""
    encoded = as_text(column).dictionary_encode()
    numbers = np.append(coded(encoded.dictionary.to_pylist(), levels), -1.0)
    places = encoded.indices.to_numpy(zero_copy_only=False)  # of a null NaN
    return numbers[np.nan_to_num(places, nan=-1).astype(int)]


def levels_of(
    names: Sequence[str],
    batches: Iterable[tuple[pa.RecordBatch, np.ndarray | None]],
    *,
    label: str,
    option: str,
) -> dict[str, tuple[str, ...]]:
    """Returns the levels of columns by their names: in the order of text, or of numbers.

    Arguments:
        names: The columns.
        batches: Record batches of them, each with which of its rows count, with shape (B,);
            None: all.
        label: Name of the source for messages.
        option: The option that chooses such columns.

    Raises:
        BadInput: If a column has no level, one alone, or more than ``MOST``.
    """
    seen: dict[str, set[str]] = {name: set() for name in names}
    for batch, counted in batches:
        for name, known in seen.items():
            column = batch.column(name)
            found = as_text(column if counted is None else column.filter(pa.array(counted)))
            known.update(value for value in pc.unique(found).to_pylist() if value is not None)
            _check_few(name, known, label, option)
    for name, known in seen.items():
        _check_several(name, known, label, option)
    return {name: _ordered(known) for name, known in seen.items()}


def one_of(levels: Sequence[str]) -> str:
    """Returns what is expected of a value, in a message."""
    more = f" … ({len(levels)} in all)" if len(levels) > 8 else ""
    return f"a level of the training rows: {', '.join(levels[:8])}{more}"


def _ordered(levels: set[str]) -> tuple[str, ...]:
    whole = all(level.removeprefix("-").isdecimal() for level in levels)
    return tuple(sorted(levels, key=int if whole else None))


def _check_few(name: str, levels: set[str], label: str, option: str) -> None:
    if len(levels) > MOST:
        raise BadInput(
            f"{label}, column {name}: found more than {MOST} levels ({sorted(levels)[0][:40]!r}, "
            f"…), expected fewer, as of categories: choose others by {option}, or merge levels"
        )


def _check_several(name: str, levels: set[str], label: str, option: str) -> None:
    if len(levels) < 2:
        found = f"the level {min(levels)[:40]!r} alone" if levels else "no value"
        rows = "training rows" if option == "context" else "rows"
        raise BadInput(
            f"{label}, column {name}: found {found} in the {rows}, expected two levels or more: "
            f"choose others by {option}"
        )
