"""Detection of the columns of a table, from all of its rows, batch by batch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .column import (
    MICROSECONDS,
    NUMERAL,
    Column,
    as_microseconds,
    misspelt_times,
    times_of,
)
from .dependence import Factor, dependent
from .frames import ArrayLike, Series, columns_of, is_frame, key, library_of, numbered, read
from .schema import Columns

LEVELS = 256  # Codes of a category at most
RARE_ROWS = 10  # Rows below which a level is rare; a twentieth in fewer than 200 rows
RARE_SHARE = 0.0005  # Share of all rows below which a level is rare
IDENTIFIER_ROWS = 50  # Rows from which a column may be an identifier
IDENTIFIER_SHARE = 0.95  # Share of distinct texts from which a column of text is one
OFFSET = 10_000  # Identifiers may start anywhere from here; smaller numbers may be years
DISTINCT = 8  # Rows² over the range of integers from which they are all distinct on purpose
RELATED = 5  # Standard errors of a correlation from which an identifier predicts a column
TEXTS = 100_000  # Distinct texts that are counted by name, at most
NO_DATES = 0.1  # Share of rows up to which other texts among dates are mistakes
MISSPELT = 0.02  # Share of rows up to which words among numbers are mistakes, and not levels
WORDS = 0.1  # Share of the distinct texts from which words are too many to be mistakes
DECIMALS = 9  # Decimal places of a column that has any at all, at most
SINGLE = ("float32", "Float32", "float", "arrow:float")  # Names of types with seven digits
NUMERIC = ("number", "integer", "boolean", "time", "duration")


def detect_columns(
    frame: ArrayLike, names: Sequence[str] | None = None, *, context: bool = False, what: str = "x"
) -> Columns:
    """Returns the columns of a frame, by all of its rows; arguments as of ``Detector``."""
    detector = Detector(names, context=context, what=what)
    detector.update(frame)
    return detector.finish().confirmed(frame)


class Detector:
    """A builder of ``Columns`` that reads a table batch by batch.

    Memory: O(D²) numbers, a bit more than the distinct texts of each column of text, and the
    values of columns of integers that are all distinct.

    Arguments:
        names: The columns to use; None: all of the first batch.
        context: True for contexts: identifiers and linear functions then stay.
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
        self.library, self.rows = "numpy", 0
        self._summaries: dict[str, _Summary] = {}
        self._numeric: list[str] = []
        self._numbered: set[str] = set()
        self._factor = Factor(0)

    def update(self, frame: ArrayLike, what: str | None = None, first: int | None = None) -> None:
        """Adds the rows of a batch.

        Messages have its name ``what``, by default that of the table. They have the number of its
        ``first`` row, by default the number of rows before it.

        Raises:
            ValueError: if a column is missing, or has integers that float64 would round.
            TypeError: if a column holds neither numbers, text, categories nor times.
        """
        what, first = what or self.what, self.rows if first is None else first
        columns = columns_of(frame, what)
        names = list(columns) if self.names is None else list(self.names)
        if lacking := [name for name in names if name not in columns]:
            expected = ", ".join(columns)
            raise ValueError(f"{what}: found no column {lacking[0]}, expected some of {expected}")
        series = {name: read(columns[name], name, what) for name in names}
        if not self._summaries:
            self.names, self.library = names, library_of(frame) if is_frame(frame) else "numpy"
            self._numbered = numbered(frame)
            self._summaries = {name: _Summary(name, context=self.context) for name in names}
            some = [name for name in names if not series[name].missing.all()]
            self._numeric = [name for name in some if series[name].kind in NUMERIC]
            self._factor = Factor(0 if self.context else len(self._numeric))
        for name, values in series.items():
            self._summaries[name].update(values, f"{what}, column {name!r}", first)
            self.rows = self._summaries[name].rows
        if self._factor.width:
            self._factor.update(np.stack([_in_days(series[name]) for name in self._numeric], 1))

    def finish(self) -> Columns:
        """Returns the columns.

        Raises:
            ValueError: if a column of text holds numbers of which a few are misspelt.
        """
        columns = {name: summary.column() for name, summary in self._summaries.items()}
        self._restore_predictive(columns)
        self._drop_dependent(columns)
        found = (replace(c, unit=self.units.get(name), numbered=name in self._numbered)
                 for name, c in columns.items())  # fmt: skip
        return Columns(found, self.library)

    def _restore_predictive(self, columns: dict[str, Column]) -> None:
        """Marks identifiers that are correlated with other columns as modelled."""
        correlated = abs(self._factor.correlations) > RELATED / max(self._factor.count, 1) ** 0.5
        others = np.array([not columns[name].dropped for name in self._numeric], bool)
        for name, related in zip(self._numeric, correlated, strict=False):
            if columns[name].dropped == "identifier" and related[others].any():
                columns[name] = replace(columns[name], dropped="", value=None)

    def _drop_dependent(self, columns: dict[str, Column]) -> None:
        """Marks exact linear functions of other columns as dropped.

        Of several columns that depend on each other, those with more missing values are dropped,
        then those with a wider range: a total, and not its parts.
        """
        used = [name for name in self._numeric if self._factor.width
                and columns[name].kind in NUMERIC and not columns[name].dropped]  # fmt: skip
        used.sort(key=lambda name: (columns[name].missing, columns[name].high - columns[name].low))
        places = [self._numeric.index(name) for name in used]
        units = [86_400.0 if columns[name].scale == "seconds" else 1.0 for name in used]
        for k, terms, offset in dependent(self._factor, places, units):
            named = {used[j]: terms[j] for j in sorted(terms, key=places.__getitem__)}
            column = columns[used[k]]
            columns[used[k]] = replace(column, dropped="linear", terms=named, offset=offset)


class _Summary:
    """A summary of the values of a column."""

    def __init__(self, name: str, *, context: bool) -> None:
        self.name, self.context = name, context
        self.rows = self.missing = self.uncounted = 0
        self.kind, self.dtype, self.ordered = "", "", False
        self.categories: tuple[Any, ...] = ()
        self.texts: Counter[Any] = Counter()
        self.places: dict[str, str] = {}  # The first place of each text that is no number
        self.low, self.high, self.decimals = np.inf, -np.inf, 0
        self.whole_days = True
        self.distinct: np.ndarray | None = np.empty(0)

    def update(self, series: Series, where: str, first: int) -> None:
        """Adds the values of a batch; ``where`` and the number of the first row are for errors."""
        kind = _common(self.kind or series.kind, series.kind)
        if kind == "text" and self.kind in NUMERIC:
            expected = "expected numbers: make all of it text"
            raise TypeError(f"{where}: found text in row {first} or later, {expected}")
        self.kind, self.dtype, self.rows = kind, series.dtype, self.rows + len(series.values)
        self.missing += int(series.missing.sum())
        if kind in ("text", "category"):
            self._count(series)
        else:
            self._measure(series)
        if kind == "text":
            self._locate(series, where, first)

    def _locate(self, series: Series, where: str, first: int) -> None:
        """Adds the first places of texts that are no numbers, for errors."""
        if len(self.places) > TEXTS:
            return
        for row, text in enumerate(series.texts, first):
            if text is not None and text not in self.places and not NUMERAL.fullmatch(text):
                self.places[text] = f"{where}, row {row}"

    def column(self) -> Column:
        """Returns the column."""
        if self.kind not in ("text", "category"):
            return self._numbers()
        present = self.rows - self.missing
        if not present:
            return self._column("text", dropped="constant")
        if self.kind == "text":
            if found := self._as_numbers() or self._as_times():
                return replace(found._numbers(), dtype=self.dtype, text=found.dtype)
            self._check_numbers()
            self._check_times()
        distinct = len(self.texts) + self.uncounted
        identifies = present >= IDENTIFIER_ROWS and distinct >= IDENTIFIER_SHARE * present
        if identifies and not self.context:
            return self._column("text", dropped="identifier")
        return self._category()

    def _column(self, kind: str, **attributes: Any) -> Column:  # noqa: ANN401
        return Column(self.name, kind, self.dtype, missing=self.missing, **attributes)

    def _count(self, series: Series) -> None:
        """Adds texts or levels to their counts."""
        values = series.texts
        if series.kind == "category":
            self.ordered, values = series.ordered, series.objects.tolist()
            self.categories = tuple(dict.fromkeys([*self.categories, *series.levels]))
        values = [value for value in values if value is not None]
        if len(self.texts) > TEXTS:
            counted = [value for value in values if value in self.texts]
            self.uncounted += len(values) - len(counted)
            values = counted
        self.texts.update(values)

    def _measure(self, series: Series) -> None:
        """Adds numbers or times to their range, their decimals and their distinct values."""
        times = series.kind in ("time", "duration")
        values = as_microseconds(series.values) if times else series.values
        values = values[~np.isnan(values)]
        if not len(values):
            return
        self.low, self.high = min(self.low, values.min()), max(self.high, values.max())
        if times:
            self.whole_days &= bool((values % 86_400e6 == 0).all())
            return
        values = values.astype(np.float32) if series.dtype in SINGLE else values
        self.decimals = _decimals(values, self.decimals)
        if self.distinct is not None:
            both = np.concatenate([self.distinct, values])
            distinct = np.unique(both) if self.decimals == 0 else both[:0]
            self.distinct = distinct if len(distinct) == len(both) else None

    def _numbers(self) -> Column:
        """Returns the column of numbers or times."""
        if self.rows == self.missing:
            return self._column(self.kind, scale="days", dropped="constant")
        times = self.kind in ("time", "duration")
        scale = ("days" if self.whole_days else "seconds") if times else ""
        low, high = (float(end / MICROSECONDS.get(scale, 1.0)) for end in (self.low, self.high))
        decimals = None if times or self.decimals > DECIMALS else self.decimals
        column = self._column(self.kind, scale=scale, decimals=decimals, low=low, high=high)
        if low == high and np.isfinite(low):
            return replace(column, dropped="constant", value=low)
        if self._identifies():
            return replace(column, dropped="identifier", value=self.high + 1)
        return column

    def _identifies(self) -> bool:
        """Returns True if the values are integers that would not all be distinct by chance."""
        numbers = self.kind in ("integer", "number") and self.distinct is not None
        if not numbers or self.missing or self.context or self.rows < IDENTIFIER_ROWS:
            return False
        starts = 0 <= self.low <= max(1, 0.2 * self.high) or self.low >= OFFSET
        return starts and self.high - self.low < self.rows**2 / DISTINCT

    def _category(self) -> Column:
        """Returns the column with its levels; the rare ones are grouped."""
        frequent = [level for level, n in self.texts.most_common(LEVELS) if n >= self._least]
        if len(frequent) < len(self.texts):
            frequent = frequent[: LEVELS - 1]
        names = set(frequent)
        numerals = all(NUMERAL.fullmatch(key(level)) for level in names)
        by_number = sorted(names, key=lambda v: (float(key(v)) if numerals else 0.0, key(v)))
        levels = [level for level in self.categories or by_number if level in names]
        rare = {key(level): n for level, n in self.texts.items() if level not in names}
        column = self._column("category", levels=tuple(levels), rare=rare,
                              categories=self.categories, ordered=self.ordered)  # fmt: skip
        if column.size > 1:
            return column
        if len(rare) > 1:
            return replace(column, dropped="text", value="a rare level")
        return replace(column, dropped="constant", value=levels[0] if levels else "a rare level")

    def _as_numbers(self) -> "_Summary | None":
        """Returns a summary of the texts as numbers, if all are numbers."""
        if not all(map(NUMERAL.fullmatch, self.texts)):
            return None
        summary = self._converted("number", np.array([*map(float, self.texts)]))
        form = f".{summary.decimals}f"
        fixed = all(format(float(text), form) == text for text in self.texts)
        summary.dtype = "fixed" if fixed and summary.decimals <= DECIMALS else "plain"
        return summary

    def _as_times(self) -> "_Summary | None":
        """Returns a summary of the texts as times, if all are dates or times of one form."""
        if (found := times_of([*self.texts])) is None:
            return None
        summary = self._converted("time", found[0])
        summary.dtype = found[1]
        return summary

    def _converted(self, kind: str, values: np.ndarray) -> "_Summary":
        """Returns a summary of the values of distinct texts, in place of the texts."""
        summary = _Summary(self.name, context=self.context)
        summary.update(Series(kind, values, ""), "", 0)
        summary.missing, summary.rows = self.missing, self.rows
        if len(self.texts) < self.rows - self.missing:
            summary.distinct = None
        return summary

    @property
    def _least(self) -> float:
        """Rows below which a level is rare."""
        return max(min(RARE_ROWS, self.rows // 20), RARE_SHARE * self.rows)

    def _check_times(self) -> None:
        """Raises ValueError if nearly all rows are dates of one form, and the others are not."""
        if self.uncounted or (found := misspelt_times(self.texts, NO_DATES)) is None:
            return
        form, others = found
        rows = sum(self.texts[text] for text in others)
        first = next(text for text in self.places if text in others)
        known = f"a date as {form}" if form != "hh:mm" else "a time as hh:mm"
        raise ValueError(
            f"{self.places[first]}: found {first[:60]!r}, expected {known}, as all but {rows} of "
            "the rows have: correct such values, remove them, or make the column a category"
        )

    def _check_numbers(self) -> None:
        """Raises ValueError if nearly all rows are numbers, and the others are no levels."""
        words = {text: n for text, n in self.texts.items() if not NUMERAL.fullmatch(text)}
        if sum(words.values()) > MISSPELT * (self.rows - self.missing):
            return
        codes = any(map(str.isdigit, words))  # as 007: its zeros mean something
        varied = len(words) > max(RARE_ROWS, WORDS * len(self.texts))
        level = any(n >= self._least and any(map(str.isalnum, t)) for t, n in words.items())
        if not (codes or varied or (level and len(self.texts) <= LEVELS)):
            first, place = next(iter(self.places.items()))
            raise ValueError(
                f"{place}: found {first[:60]!r} among numbers, expected a number or a missing "
                "value: correct such values, or make the column a category"
            )


def _common(one: str, two: str) -> str:
    """Returns the kind of a column whose batches have two kinds."""
    numeric = ("boolean", "integer", "number")
    if one in numeric and two in numeric:
        return max(one, two, key=numeric.index)
    return one if one == two else "text"


def _decimals(values: np.ndarray, least: int) -> int:
    """Returns the decimal places of all values, one more than ``DECIMALS`` if there are more."""
    for part in (values[:100], values):
        while least <= DECIMALS and not np.array_equal(np.round(part, least), part):
            least += 1
    return least


def _in_days(series: Series) -> np.ndarray:
    """Returns a numeric column, times in days; NaN for text in this batch."""
    if series.kind in ("time", "duration"):
        return as_microseconds(series.values) / 86_400e6
    if series.kind in NUMERIC:
        return series.values
    return np.full(len(series.values), np.nan)
