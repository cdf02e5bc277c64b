"""A column of a table: what it holds, how its values become numbers, and how they are restored."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from .dependence import EXACT
from .frames import NUMERIC, TIMES, Series, key

MICROSECONDS = {"days": 86_400e6, "seconds": 1e6}

# A number as text; "007" is none, since its zeros mean something.
NUMERAL = re.compile(r"\s*[+-]?(?:0|[1-9]\d*|(?:0|[1-9]\d*)?\.\d+|[1-9]\d*\.)(?:[eE][+-]?\d+)?\s*")

# A date, perhaps with a time of day.
ISO = re.compile(r"\d{4}-\d\d-\d\d(?:([T ])\d\d:\d\d(:\d\d(?:\.(\d{1,6}))?)?(Z?))?")

# The orders of dates in text, that of ISO 8601 first; "" is a time of day without a date.
DATES = "YYYY-MM-DD", "DD/MM/YYYY", "MM/DD/YYYY", "DD.MM.YYYY", "YYYY/MM/DD", ""
TRUTH = {"true": "1", "false": "0"}  # Booleans as text
PROBED = 20  # The most frequent texts, of which one at least is a date in a column of dates
COARSEST = 1e-3  # Largest error of values, as a share of the interval that half of them lie in
NEXT_TO_0 = 1e-37  # Above the smallest float32, which samples at a bound of 0 are
IGNORED = ("identifier", "text")  # Reasons of a dropped column whose values are not checked
SHOWN = 6  # Terms of a formula and levels of a message that are printed at most


@dataclass(frozen=True)
class Column:
    """A column of a table.

    All rare levels have the code K − 1, one beyond the others', and levels that the training rows
    lack have the code K.
    """

    name: str
    kind: str  #: number, integer, boolean, time, duration, category, or text (of identifiers)
    dtype: str  #: The name of its type in the frame's library
    levels: tuple[Any, ...] = ()  #: The levels of a category, by their codes
    rare: Mapping[str, int] = field(default_factory=dict)  #: The training rows of rare levels
    categories: tuple[Any, ...] = ()  #: All levels of a categorical type, in its order
    ordered: bool = False  #: True if the order of the levels has a meaning
    decimals: int | None = None  #: Decimal places of all numbers; None: more than nine
    scale: str = ""  #: The unit, days or seconds, of times since 1970 and of durations
    text: str = ""  #: The format of numbers and times that the table has as text
    unit: str | None = None  #: The unit of measurement, for axes
    low: float | None = None  #: The smallest number
    high: float | None = None  #: The largest number
    missing: int = 0  #: The training rows without a value
    #: Why it is not modelled: constant, identifier, linear, or text (of rare levels alone)
    dropped: str = ""
    value: Any = None  #: A constant, if it has any value; the next number of an identifier
    terms: Mapping[str, float] = field(default_factory=dict)  #: Its factors, if it is linear
    offset: float = 0.0  #: The constant of a linear function
    numbered: bool = False  #: True if its name in the frame is a whole number

    @property
    def key(self) -> str | int:
        """The name in the frame."""
        return int(self.name) if self.numbered else self.name

    @property
    def is_ignored(self) -> bool:
        """True if no value of the column changes the log-density of a row."""
        return self.dropped in IGNORED

    @property
    def is_constant(self) -> bool:
        """True if the training rows have one number, or no value."""
        return self.low == self.high and (self.low is not None or self.missing > 0)

    @property
    def size(self) -> int:
        """The number K of codes of a category, 0 for other kinds."""
        return len(self.levels) + bool(self.rare)

    @property
    def level_names(self) -> list[str]:
        """The names of the K codes of a category."""
        return [*map(key, self.levels), *["(other)"] * bool(self.rare)]

    @property
    def label(self) -> str:
        """The name with the unit of measurement."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name

    @cached_property
    def codes(self) -> dict[str, int]:
        """The codes of the levels, by their text."""
        rare = dict.fromkeys(self.rare, len(self.levels))
        return rare | {key(level): code for code, level in enumerate(self.levels)}

    def encode(self, series: Series, what: str = "x", first: int = 0) -> np.ndarray:
        """Returns float64 numbers with shape (N,), NaN where a value is missing.

        ``what`` and the number of the ``first`` row are for messages. In a column that was a
        constant, values that are no numbers are infinite: they differ from it.

        Raises:
            ValueError: if a value is neither a number nor a time where one is expected, neither
                true nor false in a column of booleans, or a number in one of leading zeros.
        """
        if self.kind in ("category", "text"):
            zeros = [t for t in self.codes if t[:1] == "0" and t[1:].isdigit()]
            if series.group == "number" and zeros and not series.missing.all():
                found = f"{what}, column {self.name!r}: found numbers"
                raise ValueError(f"{found}, expected text with leading zeros, as {zeros[0]!r}")
            codes = (np.nan if t is None else self.codes.get(t, self.size) for t in series.texts)
            return np.fromiter(codes, np.float64)
        numbers = series.values
        if series.kind in ("category", "text"):
            texts = enumerate(series.texts, first)
            numbers = np.array([self._parsed(text, row, what) for row, text in texts], np.float64)
        if series.kind in ("time", "duration") and self.kind != series.kind:
            if not self.is_constant and not series.missing.all():
                raise ValueError(f"{what}, column {self.name!r}: found times, expected numbers")
            return np.where(series.missing, np.nan, np.inf)
        if series.kind in ("time", "duration"):
            return as_microseconds(series.values) / MICROSECONDS[self.scale]
        if self.kind == "boolean" and not self.dropped:
            for row in np.flatnonzero(~np.isnan(numbers) & ~np.isin(numbers, (0, 1)))[:1]:
                where = f"{what}, column {self.name!r}, row {first + row}"
                raise ValueError(f"{where}: found {numbers[row]:g}, expected true or false")
        return numbers

    def decode(self, numbers: np.ndarray, random: np.random.Generator) -> Series:
        """Returns the values of numbers with shape (N,), in the column's own type."""
        if self.kind == "category":
            return self._levels(numbers, random)
        if self.kind == "text":
            return Series("text", np.full(len(numbers), None, object), self.dtype)
        if self.kind in ("time", "duration"):
            return self._times(numbers)
        numbers = numbers if self.decimals is None else np.round(numbers, self.decimals)
        if self.text:
            form = f".{self.decimals}f" if self.text == "fixed" else ".15g"
            texts = [None if n != n else format(n, form) for n in numbers.tolist()]
            return Series("text", np.array(texts, object), self.dtype)
        if self.kind == "boolean":
            numbers = np.where(np.isnan(numbers), np.nan, numbers >= 0.5)
        return Series(self.kind, numbers, self.dtype)

    def filled(self, series: Series, other: Series, text: str) -> Series:
        """Returns a column with its missing values replaced by those of ``other``, as decoded.

        A column of another group of kinds gets this one's type. It is ``text`` if this one is, or
        is a constant. Its values are not rounded.
        """
        if series.group != other.group:
            is_number = self.kind in NUMERIC
            if self.kind == "category" or self.value is not None or (self.text and is_number):
                series, other = series.as_text(text), other.as_text(text)
            elif self.terms or not self.dropped:
                exact = replace(self, decimals=None)
                series = exact.decode(self.encode(series), np.random.default_rng(0))
        return series if series.group != other.group else series.filled(other)

    def restored(self, values: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
        """Returns the numbers of a column that is not modelled, from those of the others."""
        if self.terms:
            indicator = (self.low, self.high) == (0, 1)
            return self._linear(values).round().clip(0, 1) if indicator else self._linear(values)
        if self.value is None:
            return np.full(rows, np.nan)
        if self.dropped == "identifier":
            return self.value + np.arange(rows, dtype=np.float64)
        return np.full(rows, 0.0 if self.kind == "category" else float(self.value))

    def follows(self, values: Mapping[str, np.ndarray]) -> bool:
        """Returns True if the column is its linear function in all rows that are complete."""
        own = values[self.name]
        finite = own[np.isfinite(own)]
        if not len(finite):
            return True
        spread = np.subtract(*np.quantile(finite, [0.75, 0.25])) or finite.std()
        slack = self._slack(spread, np.abs(finite).max())
        return not bool((np.abs(own - self._linear(values)) > slack).any())

    def against(self, values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows that differ from the expected numbers, and these numbers."""
        own = values[self.name]
        if not self.terms:
            expected = self.restored({}, len(own))
            return ~(np.isclose(own, expected, rtol=1e-9, atol=0) | np.isnan(own)), expected
        expected = self._linear(values)
        parts = [own, self.offset, *(c * values[name] for name, c in self.terms.items())]
        slack = self._slack(self.high - self.low, sum(map(np.abs, parts)))
        return np.abs(own - expected) > slack, expected

    def _slack(self, spread: float, size: np.ndarray) -> np.ndarray:
        """Returns the largest rounding error of a sum of values of this size, in this range."""
        near = np.maximum(EXACT * spread, 1e-13 * size)
        return near if self.decimals is None else np.maximum(near, 0.5 * 10.0**-self.decimals)

    def complete(self, values: dict[str, np.ndarray]) -> None:
        """Fills in a missing term where the column and its other terms have values."""
        missing = np.sum([np.isnan(values[name]) for name in self.terms], axis=0)
        for name, coefficient in self.terms.items():
            rows = np.isnan(values[name]) & (missing == 1) & ~np.isnan(values[self.name])
            if rows.any():
                others = {n: np.where(np.isnan(v), 0.0, v) for n, v in values.items()}
                rest = (values[self.name] - self._linear(others)) / coefficient
                values[name] = np.where(rows, rest, values[name])

    def describe(self) -> str:
        """Returns what is done to the column, in a few words."""
        if self.dropped == "linear":
            return f"dropped: equals {self.formula()}"
        if self.dropped == "identifier":
            return "dropped: identifier, its values are ignored"
        if self.dropped == "text":
            return f"dropped: text of {len(self.rare):,} rare values, which are ignored"
        if self.dropped:
            return f"dropped: {self._constant()}"
        text = self.kind
        if self.kind == "category":
            rare = f" ({len(self.rare)} rare ones grouped)" if self.rare else ""
            text = f"{'ordered ' * self.ordered}category, {self.size} levels{rare}"
        if self.kind in ("time", "duration"):
            since = self.kind == "time" and self._order
            text = f"{self.kind} in {self.scale}{' since 1970' if since else ''}"
        return text + f", {self.missing} missing (none in samples)" * bool(self.missing)

    @classmethod
    def from_dict(cls, attributes: Mapping[str, Any]) -> "Column":
        """Returns the column with these attributes, lists for tuples."""
        tuples = {k: tuple(v) for k, v in attributes.items() if isinstance(v, list)}
        return cls(**{**attributes, **tuples})

    def _linear(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the linear function of the numbers of other columns."""
        return sum((c * values[name] for name, c in self.terms.items()), self.offset)

    def _parsed(self, text: str | None, row: int, what: str) -> float:
        """Returns the number, or the time, that a text is."""
        if text is None:
            return np.nan
        try:
            if self.kind == "time":
                return _microseconds(_as_iso(text, self._order)) / MICROSECONDS[self.scale]
            return _number(TRUTH.get(text.lower(), text))
        except ValueError:
            if self.is_constant:
                return np.inf
            time = f"a date or a time, as {self._order or 'hh:mm'} in the training rows"
            expected = time if self.kind == "time" else "a number"
            expected += "; correct it, or leave the row out"
            where = f"{what}, column {self.name!r}, row {row}"
            raise ValueError(f"{where}: found {text[:60]!r}, expected {expected}") from None

    def _levels(self, numbers: np.ndarray, random: np.random.Generator) -> Series:
        """Returns the levels of codes; rare ones by their frequency among the training rows."""
        codes = np.where(np.isnan(numbers), -1, np.round(numbers)).astype(np.int64)
        codes = np.minimum(codes, self.size - 1)
        rare, other = list(self.rare), len(self.levels)
        levels = np.array([*self.levels, *rare, None], object)
        if rare:
            weights = np.array(list(self.rare.values()), float)
            samples = random.choice(len(rare), len(codes), p=weights / weights.sum())
            codes = np.where(codes == other, other + samples, codes)
        if not self.categories:
            return Series("text", levels[codes], self.dtype)
        places = {key(level): place for place, level in enumerate(self.categories)}
        table = np.array([*(places[key(level)] for level in levels[:-1]), -1])
        return Series("category", table[codes], self.dtype, self.categories, self.ordered)

    def _times(self, numbers: np.ndarray) -> Series:
        """Returns the times or durations of numbers of days or seconds."""
        missing, time = ~np.isfinite(numbers), self.kind == "time"
        if time and self.scale == "days":
            numbers = np.floor(numbers + 0.5)
        whole = np.round(np.where(missing, 0.0, numbers) * MICROSECONDS[self.scale])
        times = whole.astype(np.int64).astype(TIMES[self.kind])
        times[missing] = "NaT"
        if not self.text:
            return Series(self.kind, times, self.dtype)
        unit, separator, zone, *_ = self.text.split("|")
        iso = [f"{t.replace('T', separator)}{zone}" for t in np.datetime_as_string(times, unit)]
        texts = np.array([_from_iso(text, self._order) for text in iso], object)
        texts[missing] = None
        return Series("text", texts, self.dtype)

    @property
    def _order(self) -> str:
        """The order of dates that the table has as text."""
        return (self.text.split("|")[3:] or DATES)[0]

    def text_of(self, number: float) -> str:
        """Returns a number of the column as text: a level, a time, or a number of few digits."""
        if number != number:
            return "no value"
        if self.kind == "category":
            names = [*self.level_names, "(a new level)"]
            return str(self.value) if self.dropped else names[min(round(number), len(names) - 1)]
        if self.kind in ("time", "duration", "boolean"):
            series = self.decode(np.array([number]), np.random.default_rng(0))
            value = str(series.objects[0])
            return value.removesuffix(".000000").removesuffix("T00:00:00")
        if abs(number) < NEXT_TO_0:
            return "0"
        if number.is_integer() and abs(number) < 1e15:
            return f"{number:,.0f}"
        return f"{number:,.4g}" if abs(number) < 1e4 else f"{number:,.0f}"

    def _constant(self) -> str:
        """Returns the value of a constant as text, and the number of rows without it."""
        if self.value is None:
            return "no value"
        category = self.kind == "category"
        value = repr(self.value) if category else self.text_of(float(self.value))
        rows = f"{self.missing} row{'s' * (self.missing > 1)}"
        return f"{value}, or missing in {rows}" if self.missing else f"always {value}"

    def formula(self) -> str:
        """Returns the linear function, as ``2 x + 1``."""
        terms = [(f"[{n}]" if n.isdigit() else n, c) for n, c in self.terms.items()][:SHOWN]
        parts = [f"{'- ' if c < 0 else '+ '}{f'{abs(c):g} ' * (abs(c) != 1)}{name}"
                 for name, c in terms]  # fmt: skip
        parts += ["+ …"] * (len(self.terms) > SHOWN)
        if self.offset:
            parts.append(f"{'-' if self.offset < 0 else '+'} {abs(self.offset):g}")
        return " ".join(parts).removeprefix("+ ")


def _number(text: str) -> float:
    """Returns the number that a text is; raises ValueError if it is none.

    ``float`` alone also reads 1_000, nan, inf and 0012, which are no numbers in training rows.
    """
    if not NUMERAL.fullmatch(text):
        raise ValueError(text)
    return float(text)


def as_microseconds(times: np.ndarray) -> np.ndarray:
    """Returns times or durations as float64 microseconds, NaN for NaT."""
    return np.where(np.isnat(times), np.nan, times.astype(np.int64).astype(np.float64))


def times_of(texts: Sequence[str]) -> tuple[np.ndarray, str] | None:
    """Returns texts as times, and their form; None if they have not all one form that is known.

    Days and months that could be in either order are no dates.
    """
    found = [each for order in DATES if (each := _in_order(texts, order))]
    return found[0] if len(found) == 1 else None


def misspelt_times(texts: Counter[str], share: float) -> tuple[str, set[str]] | None:
    """Returns the form of dates that nearly all texts have, and the other texts.

    None if no form, or more than one, leaves at most a ``share`` of the rows out. ``texts`` has
    the number of rows of each text.
    """
    found = []
    for order in DATES:
        some = [text for text, _ in texts.most_common(PROBED)]
        if not any(_in_order([text], order) for text in some):
            continue
        others = {text for text in texts if not _in_order([text], order)}
        if 0 < sum(texts[text] for text in others) <= share * texts.total():
            found.append((order or "hh:mm", others))
    return found[0] if len(found) == 1 else None


def _in_order(texts: Sequence[str], order: str) -> tuple[np.ndarray, str] | None:
    """Returns texts as times, and their form; None if not all have dates of this order."""
    iso = [_as_iso(text, order) for text in texts]
    matches = [ISO.fullmatch(text) for text in iso]
    forms = {m and (m[1] and m[1][0], m[4]) for m in matches}
    if None in forms or len(forms) > 1 or [_from_iso(text, order) for text in iso] != [*texts]:
        return None
    try:
        times = np.array([_microseconds(text) for text in iso]).astype("datetime64[us]")
    except ValueError:
        return None
    separator, zone = matches[0][1] or "", matches[0][4] or ""
    digits = max(len(m[3] or "") for m in matches)
    unit = "D" if not separator else "us" if digits > 3 else "ms" if digits else \
        "s" if any(m[2] for m in matches) else "m"  # fmt: skip
    return times, f"{unit}|{separator}|{zone}" + f"|{order}" * (order != DATES[0])


def _microseconds(text: str) -> int:
    """Returns the microseconds since 1970 of a text in ISO 8601."""
    return int(np.datetime64(text.strip().removesuffix("Z"), "us").astype(np.int64))


def _as_iso(text: str, order: str) -> str:
    """Returns a text, whose date has one of the orders ``DATES``, in ISO 8601."""
    if not order:
        return f"1970-01-01T{text}"
    places = [(order.index(part), len(part)) for part in ("YYYY", "MM", "DD")]
    return "-".join(text[first : first + size] for first, size in places) + text[len(order) :]


def _from_iso(text: str, order: str) -> str:
    """Returns a text in ISO 8601 with its date in one of the orders ``DATES``."""
    if not order:
        return text[11:]
    date = order.replace("YYYY", text[:4]).replace("MM", text[5:7]).replace("DD", text[8:10])
    return date + text[10:]
