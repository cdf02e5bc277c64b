"""Bounds of columns, as they are typed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ebflow.errors import BadInput

if TYPE_CHECKING:
    from ebflow.marginals import Bounds


def bounds(texts: Sequence[str], columns: Sequence[str]) -> "Bounds":
    """Returns bounds by the index of a column, of texts NAME:LOW:HIGH.

    Raises:
        BadInput: If a text is none, or there is no such column.
    """
    found: dict[int, tuple[float | None, float | None]] = {}
    for text in texts:
        name, *ends = text.rsplit(":", 2)
        try:
            low, high = (float(end) if end else None for end in ends)
        except ValueError:
            raise BadInput(
                f"--preprocess.bounds: found {text!r}, expected NAME:LOW:HIGH with numbers, one "
                "of them perhaps empty"
            ) from None
        if None not in (low, high) and not low < high:
            raise BadInput(f"--preprocess.bounds: found {text!r}, expected LOW below HIGH")
        if name not in columns:
            known = ", ".join(columns)
            raise BadInput(f"--preprocess.bounds: found column {name!r}, expected one of {known}")
        found[list(columns).index(name)] = low, high
    return found
