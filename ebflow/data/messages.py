"""Parts of the one line that says what is wrong with data."""

__all__ = ["found_at", "listed", "named"]

from collections.abc import Sequence

import pyarrow as pa


def found_at(file: str, row: int, where: str, value: object, expected: str) -> str:
    """Returns the line on a value of a row."""
    found = "null" if value is None else value
    return f"{file}, row {row}, {where}: found {found}, expected {expected}"


def listed(names: Sequence[str]) -> str:
    """Returns names, twelve at most."""
    return ", ".join(names[:12]) + (f" … ({len(names)} in all)" if len(names) > 12 else "")


def named(kind: pa.DataType) -> str:
    """Returns the name of a type, sixty characters at most."""
    text = " ".join(str(kind).split())
    return text if len(text) <= 60 else text[:57] + "..."
