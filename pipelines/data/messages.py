"""Messages about bad input: file, column and row in one line."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pydantic import ValidationError

from ebflow.errors import BadInput

LONGEST = 60  # Characters of a value or a type that a message shows


class Place(NamedTuple):
    """The place of a batch of rows."""

    file: str  #: The name of the file in messages
    first: int  #: The number of the batch's first row in the file

    def bad(self, row: int, name: str, value: object, expected: str) -> BadInput:
        """Returns the error about the value in a row of the batch."""
        shown = repr(value[:LONGEST]) if isinstance(value, str) else value
        found = "null" if value is None else shown
        row += self.first
        return BadInput(file=self.file, column=name, row=row, found=found, expected=expected)


def listed(names: Sequence[str], most: int = 12) -> str:
    """Returns the first names, and their number if there are more."""
    more = f" … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def type_name(kind: pa.DataType) -> str:
    """Returns the name of a type, shortened."""
    return _shortened(" ".join(str(kind).split()))


def short(value: object) -> str:
    """Returns a value in JSON, shortened."""
    return _shortened(json.dumps(value, default=repr))


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def first_error(error: ValidationError, file: object, column: str | None = None) -> BadInput:
    """Returns the first error in the keys of a file; a wrong version goes before others."""
    errors = error.errors(include_url=False, include_context=False)
    problem = next((one for one in errors if one["loc"] == ("version",)), errors[0])
    if not problem["loc"]:
        return BadInput(file=file, found="no manifest of a data set", hint=problem["msg"])
    key = f"key {'.'.join(map(str, problem['loc']))[:LONGEST]!r}"
    found = None if problem["type"] == "missing" else short(problem["input"])
    return BadInput(file=file, column=column, option=key, found=found, hint=problem["msg"])


@contextmanager
def as_bad_input(file: str | None = None) -> Iterator[None]:
    """Raises BadInput with the message of a ValueError or TypeError of the library.

    It names the file that has the rows in place of the argument ``x`` or ``X``.
    """
    try:
        yield
    except BadInput as error:
        if file and error.option in ("x", "X"):
            error.option = file
        raise
    except (TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise BadInput(re.sub(r"^[xX]\b", lambda _: file, text) if file else text) from None


@contextmanager
def reading(
    path: str | Path, kind: str = "Parquet", *, also: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Raises one BadInput in place of the errors of reading a file.

    ``also`` are errors of the format's reader besides those of Arrow.
    """
    try:
        yield
    except BadInput:
        raise
    except PermissionError:
        raise BadInput("cannot be read (permission denied)", file=path) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError, *also) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"corrupt, or no {kind} file ({reason[:200]})", file=path) from None
