"""The terminal, on which text stands as it is."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def terminal(**options: Any) -> Console:  # noqa: ANN401
    """Returns a console that reads no markup into what it prints.

    Paths, column names and errors have brackets and colons, which rich would take for markup and
    emoji: it would drop them, or raise.
    """
    return Console(highlight=False, markup=False, emoji=False, **options)


def table(
    headings: Sequence[str], lines: Iterable[Sequence[Any]], wrap: bool = False, title: str = ""
) -> Table:
    """Returns a table, the first column to the left, all others to the right and on one line.

    Arguments:
        headings: Of its columns.
        lines: Its cells, of which text stands as it is.
        wrap: Whether the others may have several lines, too, where there is too little room.
        title: What stands above it.
    """
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left")
    for k, heading in enumerate(headings):
        side: Any = "right" if k else "left"
        made.add_column(heading, justify=side, no_wrap=bool(k) and not wrap)
    for line in lines:
        made.add_row(*line)
    return made
