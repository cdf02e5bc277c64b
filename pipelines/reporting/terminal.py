"""The terminal, which prints text as it is."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def terminal(**options: Any) -> Console:  # noqa: ANN401
    """Returns a console that prints text as it is.

    Paths, column names and errors have brackets and colons, which rich would take for markup and
    emoji.
    """
    return Console(highlight=False, markup=False, emoji=False, **options)


def table(headings: Sequence[str], lines: Iterable[Sequence[Any]], *, wrap: bool = False) -> Table:
    """Returns a table, whose first column is aligned to the left, and all others to the right.

    Arguments:
        headings: The headings of its columns.
        lines: The cells.
        wrap: True if other columns than the first may take several lines, too.
    """
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for k, heading in enumerate(headings):
        side: Any = "right" if k else "left"
        grid.add_column(heading, justify=side, no_wrap=bool(k) and not wrap)
    for line in lines:
        grid.add_row(*line)
    return grid
