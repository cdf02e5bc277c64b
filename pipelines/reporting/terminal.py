"""The terminal, on which text stands as it is."""

from typing import Any

from rich.console import Console


def terminal(**options: Any) -> Console:  # noqa: ANN401
    """Returns a console that reads no markup into what it prints.

    Paths, column names and errors have brackets and colons, which rich would take for markup and
    emoji: it would drop them, or raise.
    """
    return Console(highlight=False, markup=False, emoji=False, **options)
