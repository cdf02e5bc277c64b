"""Data sets: where rows come from, how they are prepared, and how they reach a flow.

Here is what every file of the room knows of categories, of features and of contexts alike, and how
they tell what is wrong where. A column of numbers is one element. One of categories is one-hot: an
element for each of its levels, in their order. A *stored* column of categories holds the numbers
of its levels instead.
"""

__all__ = ["BUDGET", "COARSEST", "Levels", "Place", "called", "coded", "damage", "expanded",
           "first_error", "groups", "is_numeral", "listed", "several", "short", "split", "text",
           "titles", "type_name", "width"]  # fmt: skip

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa
    from pydantic import ValidationError

BUDGET = 1 << 30
"""Bytes of rows that are held in memory at most."""

COARSEST = 1e-3
"""Largest error of a feature's values, as a share of the interval that half of them lie in."""

Levels = Sequence[Sequence[str] | None]
"""The levels of each column of categories; None for one of numbers."""


def width(levels: Levels) -> int:
    """Returns the number of elements."""
    return len(groups(levels))


def groups(levels: Levels) -> tuple[int, ...]:
    """Returns for each element the number of its column of categories, −1 of one of numbers."""
    sizes = [(-1, 1) if known is None else (k, len(known)) for k, known in enumerate(levels)]
    return tuple(column for column, size in sizes for _ in range(size))


def titles(names: Sequence[str], levels: Levels) -> list[str]:
    """Returns the names of the elements, as ``age`` and ``region=north``."""
    pairs = zip(names, levels, strict=True)
    return [
        title
        for name, known in pairs
        for title in ([name] if known is None else (f"{name}={level}" for level in known))
    ]


def coded(values: Iterable[object], levels: Sequence[str]) -> np.ndarray:
    """Returns the numbers of levels as float64 with shape (N,), −1 of what is none."""
    numbers = {level: k for k, level in enumerate(levels)}
    return np.array([numbers.get(text(value), -1) for value in values], dtype=np.float64)


def text(value: object) -> str:
    """Returns a value as levels have it: ``true``, and ``1`` of 1.0."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return f"{value:.0f}"
    return str(value)


def is_numeral(value: object) -> bool:
    """Whether a value, or a text, is a number."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def split(x: np.ndarray, levels: Levels) -> list[np.ndarray]:
    """Returns the stored columns, with shape (N,), of elements with shape (N, C)."""
    ends = np.cumsum([1 if known is None else len(known) for known in levels])[:-1]
    parts = zip(np.split(x, ends, axis=1), levels, strict=True)
    return [part[:, 0] if known is None else part.argmax(1) for part, known in parts]


def expanded(stored: np.ndarray, levels: Levels) -> np.ndarray:
    """Returns elements with shape (N, C), of stored columns with shape (N, K).

    They are float64 where there are levels; those of a category that is NaN are NaN.
    """
    if all(known is None for known in levels):
        return stored
    columns = (
        column[:, None]
        if known is None
        else np.where(np.isnan(column)[:, None], np.nan, column[:, None] == np.arange(len(known)))
        for column, known in zip(stored.T, levels, strict=True)
    )
    return np.concatenate(list(columns), axis=1, dtype=np.float64)


class Place(NamedTuple):
    """Where a batch of B rows stands, and what of it is checked.

    Arguments:
        file: Name of the file for messages.
        first: Row number of the batch's first row within the file.
        lacking: What is said of a null or NaN behind what is expected; None: it is taken, as NaN.
        used: The rows whose values are checked, with shape (B,); None: all.
    """

    file: str
    first: int
    lacking: str | None = ""
    used: np.ndarray | None = None

    def bad(self, row: int, name: str, value: object, expected: str) -> BadInput:
        """Returns the line on a value of a row of the batch."""
        shown = repr(value[:60]) if isinstance(value, str) else value
        found, where = "null" if value is None else shown, f"{self.file}, row {self.first + row}"
        return BadInput(f"{where}, column {name}: found {found}, expected {expected}")

    def first_bad(self, x: np.ndarray, most: int | None = None) -> tuple[int, int, str] | None:
        """Returns row and column of the first value that is not finite, or not below ``most``.

        And what is said behind what is expected. None: all of the matrix (B, K) is good.
        """
        if most is not None:
            bad = ~(x < most)
        else:
            bad = np.isinf(x) if self.lacking is None else ~np.isfinite(x)
        if self.used is not None:
            bad &= self.used[:, None]
        if not bad.any():
            return None
        row, k = divmod(int(np.argmax(bad)), x.shape[1])
        return row, k, self.lacking or "" if most is None and np.isnan(x[row, k]) else ""


def several(names: Sequence[str], one: str, more: str) -> str:
    """Returns "column a holds" or "columns a, b, c and 7 more hold", by the verbs."""
    if len(names) == 1:
        return f"column {names[0]} {one}"
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"columns {', '.join(names[:3])}{rest} {more}"


def called(feature: int, names: Sequence[str] | None) -> str:
    """Returns "column age", or "feature 3" of data without names."""
    return f"column {names[feature]}" if names else f"feature {feature}"


def listed(names: Sequence[str], most: int = 12) -> str:
    """Returns names, some of them if they are many."""
    more = f" … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def type_name(kind: "pa.DataType") -> str:
    """Returns the name of a type, sixty characters at most."""
    text = " ".join(str(kind).split())
    return text if len(text) <= 60 else text[:57] + "..."


def first_error(error: "ValidationError") -> str:
    """Returns the end of a line on the first thing wrong; if that is a version, on that alone."""
    found = error.errors(include_url=False, include_context=False)
    problem = next((one for one in found if one["loc"] == ("version",)), found[0])
    expected = re.sub("^Input should", "expected it to", problem["msg"])
    if not problem["loc"]:
        return f": found no manifest of a data set ({expected})"
    value = "" if problem["type"] == "missing" else f"found {short(problem['input'])}, "
    return f", key {'.'.join(map(str, problem['loc']))[:60]!r}: {value}{expected}"


def short(value: object) -> str:
    """Returns a value in JSON, sixty characters at most."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


@contextmanager
def damage(
    path: str | Path,
    column: str = "x",
    first: int = 0,
    kind: str = "Parquet",
    also: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Turns Arrow's errors, and others, while reading a file from a row on, into one BadInput."""
    from pyarrow import ArrowException

    try:
        yield
        return
    except BadInput:
        raise
    except PermissionError:
        raise BadInput(f"{path}: cannot be read (permission denied)") from None
    except (ArrowException, OSError, UnicodeDecodeError, *also) as error:
        text = " ".join(str(error).split())
    # Arrow finds a null where a fixed-size list is expected, and counts it from 1.
    if found := re.search(r"lists to be of size=(\d+) but index (\d+) had size=0", text):
        place, expected = Place(str(path), first), f"a list of {found[1]}"
        raise place.bad(int(found[2]) - 1, column, None, expected)
    raise BadInput(f"{path}: found a damaged file or none of {kind} ({text[:200]})")
