"""Data in memory: frames and arrays, splits in batches, and toy distributions.

A column of categories holds the codes 0 … K − 1 of its K levels. In contexts a category is
one-hot: one element for each of its levels, in their order.
"""

__all__ = ["BUDGET", "COARSEST", "Levels", "called", "coded", "expanded", "is_numeral", "split",
           "text", "titles", "width"]  # fmt: skip

from collections.abc import Iterable, Sequence

import numpy as np

BUDGET = 1 << 30
"""Bytes of rows that are held in memory at most."""

COARSEST = 1e-3
"""Largest error of a feature's values, as a share of the interval that half of them lie in."""

Levels = Sequence[Sequence[str] | None]
"""The levels of each column of categories; None for one of numbers."""


def width(levels: Levels) -> int:
    """Returns the number of elements of a context."""
    return sum(1 if known is None else len(known) for known in levels)


def titles(names: Sequence[str], levels: Levels) -> list[str]:
    """Returns the names of the elements of a context, as ``age`` and ``region=north``."""
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


def called(feature: int, names: Sequence[str] | None) -> str:
    """Returns "column age", or "feature 3" of data without names."""
    return f"column {names[feature]}" if names else f"feature {feature}"
