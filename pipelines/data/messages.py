"""Messages on bad input: file, row and column; errors of Arrow and pydantic in one line."""

__all__ = ["Place", "damage", "first_error", "listed", "several", "short", "type_name"]

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from ebflow.errors import BadInput


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
