"""What rows are given: columns of numbers and of categories, and how they enter a flow.

A column of numbers is one element of a context. One of categories is one-hot: an element for each
of its levels, in their order; where it is stored, a level is its number.
"""

__all__ = ["Levels", "coded", "expanded", "groups", "split", "text", "titles", "width"]

from collections.abc import Iterable, Sequence

import numpy as np

Levels = Sequence[Sequence[str] | None]
"""The levels of each column of categories; None for one of numbers."""


def width(levels: Levels) -> int:
    """Returns the number C of elements of a context."""
    return sum(1 if known is None else len(known) for known in levels)


def groups(levels: Levels) -> tuple[int, ...]:
    """Returns for each element the number of its column of categories, −1 of one of numbers."""
    sizes = [(-1, 1) if known is None else (k, len(known)) for k, known in enumerate(levels)]
    return tuple(column for column, size in sizes for _ in range(size))


def titles(names: Sequence[str], levels: Levels) -> list[str]:
    """Returns the names of a context's elements, as ``age`` and ``region=north``."""
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


def split(context: np.ndarray, levels: Levels) -> list[np.ndarray]:
    """Returns the columns of contexts with shape (N, C): numbers, and numbers of levels."""
    ends = np.cumsum([1 if known is None else len(known) for known in levels])[:-1]
    parts = zip(np.split(context, ends, axis=1), levels, strict=True)
    return [part[:, 0] if known is None else part.argmax(1) for part, known in parts]


def expanded(values: np.ndarray, levels: Levels) -> np.ndarray:
    """Returns contexts with shape (N, C), of stored ones with shape (N, K), as float64."""
    columns = (
        column[:, None] if known is None else column[:, None] == np.arange(len(known))
        for column, known in zip(values.T, levels, strict=True)
    )
    return np.concatenate(list(columns), axis=1, dtype=np.float64)
