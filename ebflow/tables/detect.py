"""Finding out what the columns of a table hold, from all of its rows, batch by batch."""

__all__ = ["Detector"]

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .column import ISO, NUMERAL, Column, as_microseconds, microseconds_of
from .dependence import Moments, dependent
from .frames import ArrayLike, Series, columns_of, is_frame, key, library_of, read
from .schema import Columns

LEVELS = 256
"""Codes of a category at most."""

RARE_ROWS, RARE_SHARE = 5, 0.0005
"""Rows, and share of all rows, below which a level is rare; in fewer than 100 rows a twentieth."""

IDENTIFIER_ROWS, IDENTIFIER_SHARE = 50, 0.95
"""Rows, and share of distinct texts, from which a column of text is an identifier."""

DENSE = 2
"""Range of an integer identifier in its number of rows: a table may be part of a longer one."""

TEXTS = 100_000
"""Distinct texts that are counted at most; others are known to be there, but not by name."""

MISSPELT = 0.1
"""Share of distinct texts up to which those that are no numbers are taken for misspelt ones."""

DECIMALS = 9
"""Decimal places of a column that has any at all, at most."""

SINGLE = ("float32", "Float32", "float", "arrow:float")
"""Names of types with seven digits."""

NUMERIC = ("number", "integer", "boolean", "time", "duration")


class Detector:
    """A builder of ``Columns`` that is shown a table batch by batch.

    Memory: O(D²) numbers, a bit more than the distinct texts of each column of text, and the
    values of columns of integers that are all distinct.

    Arguments:
        names: The columns to use; None: all of the first batch.
        context: Whether they are contexts: identifiers and linear functions then stay.
        what: The name of the table in messages.
        units: Units of measurement by column.

    Example:
        >>> from ebflow.tables import Detector
        >>> detector = Detector()
        >>> detector.update({"a": [1, 2], "b": [3, 5]})
        >>> detector.update({"a": [3, 4, 9, 0], "b": [7, 9, 19, 1]})
        >>> print(detector.finish())
        column  type   treatment
        a       int64  integer
        b       int64  dropped: equals 2 a + 1
    """

    def __init__(
        self,
        names: Sequence[str] | None = None,
        *,
        context: bool = False,
        what: str = "x",
        units: dict[str, str] | None = None,
    ) -> None:
        self.names, self.context, self.what, self.units = names, context, what, units or {}
        self.library = "numpy"
        self._summaries: dict[str, _Summary] = {}
        self._numeric: list[str] = []
        self._moments: Moments | None = None

    def update(self, frame: ArrayLike) -> None:
        """Adds the rows of a batch.

        Raises:
            ValueError: if a column is missing, or has integers that float64 would round.
            TypeError: if a column holds neither numbers, text, categories nor times.
        """
        columns, what = columns_of(frame, self.what), self.what
        names = list(columns) if self.names is None else list(self.names)
        if lacking := [name for name in names if name not in columns]:
            raise ValueError(
                f"{what}: found no column {lacking[0]}, expected some of {', '.join(columns)}"
            )
        series = {name: read(columns[name], name, what) for name in names}
        if not self._summaries:
            self.names, self.library = names, library_of(frame) if is_frame(frame) else "numpy"
            self._summaries = {name: _Summary(name, what) for name in names}
            self._numeric = [name for name in names if series[name].kind in NUMERIC]
            self._moments = Moments(len(self._numeric))
        for name, values in series.items():
            self._summaries[name].update(values)
        if not self.context:
            self._moments.update(self._matrix(series))

    def finish(self) -> Columns:
        """Returns the columns.

        Raises:
            ValueError: if a column of text holds numbers of which a few are misspelt.
        """
        columns = [s.column(context=self.context) for s in self._summaries.values()]
        if not self.context and self._moments is not None:
            columns = self._without_dependent(columns)
        columns = [replace(c, unit=self.units.get(c.name)) for c in columns]
        return Columns(columns, self.library)

    def _matrix(self, series: dict[str, Series]) -> np.ndarray:
        """Returns the numeric columns of a batch, times in days, with shape (N, D)."""
        rows = len(next(iter(series.values())).values) if series else 0
        numbers = [_numbers(series[name]) for name in self._numeric]
        return np.stack(numbers, 1) if numbers else np.empty((rows, 0))

    def _without_dependent(self, columns: list[Column]) -> list[Column]:
        """Returns the columns; exact linear functions of others are marked as dropped.

        Of several that depend on each other, those with more missing values are.
        """
        places = {c.name: place for place, c in enumerate(columns)}
        used = [k for k, name in enumerate(self._numeric)
                if columns[places[name]].kind in NUMERIC
                and not columns[places[name]].dropped]  # fmt: skip
        used.sort(key=lambda k: columns[places[self._numeric[k]]].missing)
        chosen = [columns[places[self._numeric[k]]] for k in used]
        factors = np.array([86_400.0 if c.scale == "seconds" else 1.0 for c in chosen])
        digits = [c.decimals for c in chosen]
        for index, terms, offset in dependent(self._moments.scaled(used, factors), digits):
            column = chosen[index]
            named = {chosen[j].name: coefficient for j, coefficient in terms.items()}
            changed = replace(column, dropped="linear", terms=named, offset=offset)
            columns[places[column.name]] = changed
        return columns


class _Summary:
    """What has been seen of a column."""

    def __init__(self, name: str, what: str) -> None:
        self.name, self.what = name, what
        self.rows = self.missing = self.uncounted = 0
        self.kind, self.dtype, self.ordered = "", "", False
        self.categories: tuple[Any, ...] = ()
        self.texts: Counter[Any] = Counter()
        self.low, self.high, self.decimals = np.inf, -np.inf, 0
        self.whole_days = True
        self.values: np.ndarray | None = np.empty(0)

    def update(self, series: Series) -> None:
        """Adds the values of a batch."""
        kind = series.kind
        if self.kind and kind != self.kind:
            kind = _common(self.kind, kind)
        if kind == "text" and self.kind in NUMERIC:
            raise TypeError(
                f"{self.what}, column {self.name!r}: found text in row {self.rows} or later, "
                "expected numbers: make all of it text"
            )
        self.kind, self.dtype, self.rows = kind, series.dtype, self.rows + len(series.values)
        if series.kind in ("text", "category"):
            self._count(series)
        else:
            self._measure(series)

    def column(self, *, context: bool) -> Column:
        """Returns the column."""
        if self.kind in ("text", "category"):
            return self._of_text(context=context)
        return self._of_numbers(context=context)

    def _count(self, series: Series) -> None:
        """Adds texts or levels to their counts."""
        if series.kind == "category":
            self.ordered = series.ordered
            self.categories = tuple(dict.fromkeys([*self.categories, *series.levels]))
            rows = np.bincount(series.values[series.values >= 0], minlength=len(series.levels))
            self.missing += len(series.values) - int(rows.sum())
            for level, count in zip(series.levels, rows.tolist(), strict=True):
                if count:
                    self.texts[level] += count
            return
        values = [value for value in series.values.tolist() if value is not None]
        self.missing += len(series.values) - len(values)
        if len(self.texts) <= TEXTS:
            self.texts.update(values)
            return
        seen = [value for value in values if value in self.texts]
        self.uncounted += len(values) - len(seen)
        self.texts.update(seen)

    def _measure(self, series: Series) -> None:
        """Adds numbers or times to their range, their decimals and their distinct values."""
        values = series.values
        if series.kind in ("time", "duration"):
            values = as_microseconds(values)
        values = values[~np.isnan(values)]
        self.missing += len(series.values) - len(values)
        if not len(values):
            return
        self.low, self.high = min(self.low, values.min()), max(self.high, values.max())
        if series.kind in ("time", "duration"):
            self.whole_days &= bool((values % 86_400e6 == 0).all())
            return
        values = values.astype(np.float32) if series.dtype in SINGLE else values
        self.decimals = _decimals(values, self.decimals)
        if self.values is not None:
            both = np.concatenate([self.values, values])
            distinct = np.unique(both)
            self.values = distinct if len(distinct) == len(both) and self.decimals == 0 else None

    def _of_numbers(self, *, context: bool) -> Column:
        common: dict[str, Any] = {"name": self.name, "kind": self.kind, "dtype": self.dtype,
                                  "missing": self.missing}  # fmt: skip
        present = self.rows - self.missing
        if not present:
            return Column(**common, scale="days", dropped="constant")
        divisor = 1.0
        if self.kind in ("time", "duration"):
            common["scale"] = "days" if self.whole_days else "seconds"
            divisor = 86_400e6 if self.whole_days else 1e6
        elif self.decimals <= DECIMALS:
            common["decimals"] = self.decimals
        common |= {"low": float(self.low / divisor), "high": float(self.high / divisor)}
        if self.low == self.high and np.isfinite(self.low):
            return Column(**common, dropped="constant", value=common["low"])
        if not context and self._numbers_rows():
            return Column(**common, dropped="identifier", value=self.high + 1)
        return Column(**common)

    def _numbers_rows(self) -> bool:
        """Returns whether the values are distinct integers that nearly fill a range."""
        if self.kind in ("time", "duration", "boolean") or self.values is None or self.missing:
            return False
        dense = self.high - self.low < DENSE * self.rows
        starts = 0 <= self.low <= max(1, 0.2 * self.high)
        return self.rows >= IDENTIFIER_ROWS and dense and starts

    def _of_text(self, *, context: bool) -> Column:
        common: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "missing": self.missing}
        present = self.rows - self.missing
        if not present:
            return Column(**common, kind="text", dropped="constant")
        if self.kind == "text" and (found := self._as_numbers() or self._as_times()):
            return replace(found._of_numbers(context=context), missing=self.missing,
                           dtype=self.dtype, text=found.text)  # fmt: skip
        self._check_spelling()
        distinct = len(self.texts) + self.uncounted
        if not context and present >= IDENTIFIER_ROWS and distinct >= IDENTIFIER_SHARE * present:
            return Column(**common, kind="text", dropped="identifier")
        return self._as_category(common)

    def _as_category(self, common: dict[str, Any]) -> Column:
        """Returns the column with its levels; the rare ones are grouped."""
        least = max(min(RARE_ROWS, self.rows // 20), RARE_SHARE * self.rows)
        frequent = [(level, n) for level, n in self.texts.most_common(LEVELS) if n >= least]
        if len(frequent) < len(self.texts):
            frequent = frequent[: LEVELS - 1]
        names = {level for level, _ in frequent}
        levels = [level for level in self.categories or _ordered(names) if level in names]
        rare = {key(level): n for level, n in self.texts.items() if level not in names}
        found = Column(**common, kind="category", levels=tuple(levels), rare=rare,
                       categories=self.categories, ordered=self.ordered)  # fmt: skip
        if found.size > 1:
            return found
        return replace(found, dropped="constant", value=levels[0] if levels else "a rare level")

    def _as_numbers(self) -> "_Summary | None":
        """Returns what has been seen of the texts as numbers, if all are numbers."""
        if not all(map(NUMERAL.fullmatch, self.texts)):
            return None
        found = self._repeated("number", np.array([*map(float, self.texts)]))
        if found.decimals > DECIMALS:
            found.text = "plain"
        else:
            fixed = all(format(float(text), f".{found.decimals}f") == text for text in self.texts)
            found.text = "fixed" if fixed else "plain"
        return found

    def _as_times(self) -> "_Summary | None":
        """Returns what has been seen of the texts as times, if all are dates in ISO 8601."""
        matches = [ISO.fullmatch(text) for text in self.texts]
        if not all(matches) or len({(m[1] and m[1][0], m[4]) for m in matches}) > 1:
            return None
        try:
            times = np.array([microseconds_of(text) for text in self.texts])
        except ValueError:
            return None
        digits = max(len(m[3] or "") for m in matches)
        unit = "D" if not matches[0][1] else "us" if digits > 3 else "ms" if digits else \
            "s" if any(m[2] for m in matches) else "m"  # fmt: skip
        found = self._repeated("time", times.astype("datetime64[us]"))
        found.text = f"{unit}|{matches[0][1][0] if matches[0][1] else ''}|{matches[0][4] or ''}"
        return found

    def _repeated(self, kind: str, values: np.ndarray) -> "_Summary":
        """Returns a summary of values, each of which stands for the rows of a text."""
        found = _Summary(self.name, self.what)
        found.update(Series(kind, values, ""))
        found.missing, found.rows = self.missing, self.rows
        if len(self.texts) + self.uncounted < self.rows - self.missing or self.uncounted:
            found.values = None
        return found

    def _check_spelling(self) -> None:
        """Raises ValueError at many texts of which nearly all are numbers."""
        if self.kind != "text" or len(self.texts) <= LEVELS:
            return
        words = [text for text in self.texts if not NUMERAL.fullmatch(text)]
        if len(words) <= MISSPELT * len(self.texts):
            raise ValueError(
                f"{self.what}, column {self.name!r}: found {words[0][:60]!r} among numbers, "
                "expected numbers alone: correct such values, or make them missing, as by "
                "pandas.to_numeric(…, errors='coerce')"
            )


def _common(one: str, two: str) -> str:
    """Returns the kind of a column whose batches have two kinds."""
    numeric = ("boolean", "integer", "number")
    if one in numeric and two in numeric:
        return max(one, two, key=numeric.index)
    return "text"


def _decimals(values: np.ndarray, least: int) -> int:
    """Returns the decimal places of all values, one more than ``DECIMALS`` if there are more."""
    for part in (values[:100], values):
        while least <= DECIMALS and not np.array_equal(np.round(part, least), part):
            least += 1
    return least


def _numbers(series: Series) -> np.ndarray:
    """Returns a numeric column, times in days; NaN for what is text in this batch."""
    if series.kind in ("time", "duration"):
        return as_microseconds(series.values) / 86_400e6
    if series.kind in ("text", "category"):
        return np.full(len(series.values), np.nan)
    return series.values


def _ordered(levels: Iterable[Any]) -> list[Any]:
    """Returns levels by their numbers if all are numbers, otherwise by their text."""
    numerals = all(NUMERAL.fullmatch(key(level)) for level in levels)
    return sorted(levels, key=lambda level: (float(key(level)) if numerals else 0.0, key(level)))
