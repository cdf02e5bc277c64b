"""The result of a pipeline, in a form that can be shown."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

NUMBER = re.compile(r"[-−+]?\d")


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        title: What stands above it.
        headings: Of its columns, with units.
        rows: Its cells as text.
        note: What a reader has to know.
    """

    title: str
    headings: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    note: str = ""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Whether each column is of numbers; the first has names, others a cell that begins so."""
        columns = ([row[k] for row in self.rows] for k in range(1, len(self.headings)))
        return (False, *(not any(cells) or any(map(NUMBER.match, cells)) for cells in columns))


def plus_minus(found: Sequence[float | None], digits: int) -> str:
    """Returns the mean and half its interval, the mean alone where one value shows no interval.

    Nothing of a mean that is NaN. Ends may be missing or NaN.
    """
    value, _, high = found
    if math.isnan(value):
        return ""
    if high is None or math.isnan(high):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ± {high - value:.{digits}f}"
