"""Columns of frames as NumPy arrays, and back: pandas, polars, Arrow, dictionaries, arrays.

Nothing here imports a frame library before a frame of it is read or written.
"""

import datetime
import decimal
import numbers
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

#: A data frame of pandas or polars, an Arrow table, a mapping of arrays, an array or a tensor
ArrayLike = Any

LARGEST = 2**53 - 1  # Integers beyond this one are not exact in float64
TOO_WIDE = "expected whole numbers below 2^53: leave the column out, or make it text"
NO_COLUMN = "expected numbers, text, categories or times, not mixed: convert it, or leave it out"
ARROW = "arrow:"  # The prefix of Arrow's types in pandas' frames

# Names of the libraries, by their packages.
LIBRARIES = {"pandas": "pandas", "polars": "polars", "pyarrow": "arrow", "torch": "tensor"}

# Kinds of columns, by the letters of NumPy's types.
KINDS = {"b": "boolean", "f": "number", "i": "integer", "u": "integer", "m": "duration",
         "M": "time"}  # fmt: skip
TIMES = {"time": "datetime64[us]", "duration": "timedelta64[us]"}  # Kinds of times in NumPy
NUMERIC = ("boolean", "integer", "number")  # Kinds of numbers, each of which holds those before it

# Kinds of columns, by the types of Python's objects in them.
OBJECTS = (
    ("time", (datetime.date, np.datetime64)),
    ("duration", (datetime.timedelta, np.timedelta64)),
    ("boolean", (bool, np.bool_)),
    ("integer", numbers.Integral),
    ("number", (numbers.Real, decimal.Decimal)),
)


class Series(NamedTuple):
    """A column in NumPy's types.

    Its kind is ``number``, ``integer``, ``boolean`` (float64 with NaN), ``time``, ``duration``
    (microseconds with NaT), ``text`` (objects with None) or ``category`` (codes with −1).
    """

    kind: str
    values: np.ndarray  # with shape (N,)
    dtype: str  # the name of the column's type in its library
    levels: tuple[Any, ...] = ()  # the levels of the codes of a category, in order
    ordered: bool = False  # True if the order of the levels has a meaning

    @property
    def missing(self) -> np.ndarray:
        """Marks the missing values, with shape (N,)."""
        if self.kind == "text":
            return np.array([value is None for value in self.values], bool)
        if self.kind == "category":
            return self.values < 0
        return np.isnat(self.values) if self.values.dtype.kind in "mM" else np.isnan(self.values)

    @property
    def group(self) -> str:
        """The kind; ``number`` or ``text`` for those whose values can be in one column."""
        return ({"category": "text"} | dict.fromkeys(NUMERIC, "number")).get(self.kind, self.kind)

    @property
    def objects(self) -> np.ndarray:
        """The values as a frame has them: levels, and integers or booleans if none is missing."""
        if self.kind == "category":
            return np.array([*self.levels, None], object)[self.values]
        if self.kind in ("integer", "boolean") and not self.missing.any():
            return self.values.astype(np.int64 if self.kind == "integer" else bool)
        return self.values

    @property
    def texts(self) -> list[str | None]:
        """The values as text, None where one is missing."""
        if self.kind == "text":
            return self.values.tolist()
        if self.kind == "category":
            values = [*map(key, self.levels), None]
            return [values[code] for code in self.values.tolist()]
        pairs = zip(self.values.tolist(), self.missing.tolist(), strict=True)
        return [None if missing else key(value) for value, missing in pairs]

    def as_text(self, dtype: str) -> "Series":
        """Returns the column as text, in a type."""
        return Series("text", np.array([*self.texts, None], object)[:-1], dtype)

    def filled(self, other: "Series") -> "Series":
        """Returns the column with its missing values replaced by another column's, of its group.

        Integers that lack some values become real numbers if the other ones are.
        """
        count = len(self.values)
        if self.dtype == "null" or (count and self.missing.all()):  # its type may say nothing
            return other
        values, levels = other.objects, self.levels
        if self.group == "number" and (not count or self.missing.any()):
            kind, _, dtype, *_ = max(self, other, key=lambda s: NUMERIC.index(s.kind))
            self = self._replace(kind=kind, dtype=dtype)
        if self.kind == "category":
            known = set(map(key, levels))
            levels += tuple(v for v in dict.fromkeys(values[self.missing]) if key(v) not in known)
            codes = {key(level): code for code, level in enumerate(levels)}
            values = np.array([codes.get(key(value), -1) for value in values], np.int64)
        return self._replace(values=np.where(self.missing, values, self.values), levels=levels)


def library_of(frame: ArrayLike) -> str:
    """Returns ``pandas``, ``polars``, ``arrow``, ``dict``, ``tensor`` or ``numpy``."""
    if isinstance(frame, Mapping) and not hasattr(frame, "shape"):  # as sparse matrices have
        return "dict"
    return LIBRARIES.get(type(frame).__module__.partition(".")[0], "numpy")


def is_frame(frame: ArrayLike) -> bool:
    """Returns True for frames and their columns, False for arrays, tensors and lists."""
    return library_of(frame) not in ("numpy", "tensor")


def is_positional(frame: ArrayLike) -> bool:
    """Returns True if columns have no names: arrays, and a single column without a name."""
    single = not hasattr(frame, "columns") and not isinstance(frame, Mapping)
    return not is_frame(frame) or (single and not getattr(frame, "name", None))


def columns_of(frame: ArrayLike, what: str = "x") -> dict[str, Any]:
    """Returns the columns of a frame by their names, those of an array by their numbers.

    Raises:
        ValueError: if two columns have one name, or an array has not two dimensions.
    """
    library = library_of(frame)
    if library == "dict":
        return {str(name): column for name, column in frame.items()}
    if library in ("numpy", "tensor"):
        array = as_array(frame)
        if array.ndim != 2:
            raise ValueError(f"{what}: found shape {array.shape}, expected (rows, columns)")
        return {str(k): array[:, k] for k in range(array.shape[1])}
    frame = frame.collect() if hasattr(frame, "collect") else frame
    if not hasattr(frame, "columns"):
        return {str(getattr(frame, "name", None) or "0"): frame}
    names = [str(name) for name in getattr(frame, "column_names", frame.columns)]
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise ValueError(f"{what}: found column {name} twice, expected different names")
    if library == "pandas":
        return {name: frame.iloc[:, k] for k, name in enumerate(names)}
    return {name: frame[name] for name in names}


def numbered(frame: ArrayLike) -> set[str]:
    """Returns the names of columns that are whole numbers in the frame, as text."""
    names = frame if library_of(frame) == "dict" else getattr(frame, "columns", ())
    whole = (n for n in names if isinstance(n, numbers.Integral) and not isinstance(n, bool))
    return {*map(str, whole)}


def as_array(values: ArrayLike) -> np.ndarray:
    """Returns values as an array; of objects if only some of them are text."""
    array = np.asarray(values)
    if array.dtype.kind != "U" or isinstance(values, np.ndarray):
        return array
    objects = np.asarray(values, object)
    return array if all(isinstance(value, str) for value in objects.flat) else objects


def read(column: Any, name: str, what: str = "x") -> Series:  # noqa: ANN401
    """Returns a column in NumPy's types.

    Raises:
        TypeError: if its values are neither numbers, booleans, text, categories nor times.
        ValueError: if an integer is not exact in float64.
    """
    readers = {"pandas": _from_pandas, "polars": _from_polars, "arrow": _from_arrow}
    try:
        return readers.get(library_of(column), _from_numpy)(column)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{what}, column {name!r}{error}") from None


def key(level: object) -> str:
    """Returns a level as text, alike for 1, 1.0 and "1", and for True and "true"."""
    if isinstance(level, bool | np.bool_):
        return str(level).lower()
    if isinstance(level, float | np.floating) and float(level).is_integer():
        return f"{level:.0f}"
    return str(level)


def _from_numpy(column: Any) -> Series:  # noqa: ANN401
    values = as_array(column)
    values = values.reshape(-1) if values.ndim < 2 else values
    letter = values.dtype.kind
    dtype = "str" if letter == "U" else str(values.dtype)  # of any length
    if values.ndim > 1 or letter not in "biufmMOUT":
        raise TypeError(f": found {dtype}, {NO_COLUMN}")
    if letter in "OUT":
        return _from_objects(values.tolist(), dtype)
    return _from_values(values, dtype)


def _from_values(values: np.ndarray, dtype: str, kind: str = "") -> Series:
    """Returns numbers, booleans or times of NumPy's types as a column."""
    kind = kind or KINDS[values.dtype.kind]
    if kind in TIMES:
        return Series(kind, values.astype(TIMES[kind]), dtype)
    values = values.astype(np.float64)
    for row in np.flatnonzero(np.abs(values) > LARGEST)[:1] if kind == "integer" else ():
        raise ValueError(f", row {row}: found {values[row]:.0f}, {TOO_WIDE}")
    return Series(kind, values, dtype)


def _from_objects(values: Sequence[Any], dtype: str) -> Series:
    """Returns Python objects as numbers, booleans, times or text, by what they all are."""
    if any(isinstance(value, np.ndarray) for value in values):
        raise TypeError(f": found arrays, {NO_COLUMN}")
    # pandas.NA is first, because its comparisons have no truth value.
    missing = np.array([type(v).__name__ == "NAType" or v is None or v != v for v in values], bool)
    present = [value for value, lacks in zip(values, missing, strict=True) if not lacks]
    types = set(map(type, present))
    for kind, base in OBJECTS if types else ():
        if all(issubclass(t, base) for t in types):
            if wide := [v for v in present if kind == "integer" and abs(v) > LARGEST]:
                raise ValueError(f": found {wide[0]}, {TOO_WIDE}")
            own = np.array([*map(_naive, present)], TIMES.get(kind, float))
            fill = "NaT" if kind in TIMES else np.nan
            return Series(kind, _scattered(own, missing, fill), dtype)
    if not all(issubclass(t, str) for t in types):
        found = " and ".join(sorted(t.__name__ for t in types))
        raise TypeError(f": found {found}, {NO_COLUMN}")
    texts = np.array([*map(key, present), None], object)[:-1]
    return Series("text", _scattered(texts, missing, None), dtype)


def _levels(values: Sequence[Any]) -> tuple[Any, ...]:
    """Returns levels of a category, as text if they are intervals, times or other objects."""
    return tuple(v if isinstance(v, str | int | float) else key(v) for v in values)


def _scattered(present: Sequence[Any], missing: np.ndarray, fill: object) -> np.ndarray:
    """Returns values in the rows that have one, and ``fill`` in the others."""
    present = np.asarray(present)
    values = np.full(len(missing), fill, present.dtype)
    values[~missing] = present
    return values


def _naive(value: object) -> object:
    """Returns a value as NumPy takes it: a time without its zone, in UTC."""
    if getattr(value, "tzinfo", None) is None:
        return value
    return value.astimezone(datetime.UTC).replace(tzinfo=None)


def _from_pandas(column: Any) -> Series:  # noqa: ANN401
    import pandas as pd

    column = pd.Series(column)
    dtype, name = column.dtype, str(column.dtype)
    if hasattr(column, "cat"):
        levels, codes = _levels(column.cat.categories.tolist()), column.cat.codes.to_numpy()
        return Series("category", codes.astype(np.int64), name, levels, bool(column.cat.ordered))
    if hasattr(dtype, "pyarrow_dtype"):
        series = _from_arrow(column.array.__arrow_array__())
        return series._replace(dtype=ARROW + series.dtype)
    if getattr(dtype, "tz", None) is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if dtype.kind in KINDS:
        as_float = {} if dtype.kind in "mM" else {"dtype": float, "na_value": np.nan}
        return _from_values(column.to_numpy(**as_float), name, KINDS[dtype.kind])
    return _from_objects(column.tolist(), name)


def _from_polars(column: Any) -> Series:  # noqa: ANN401
    kind, name = column.dtype, str(column.dtype)
    if name.startswith("Enum"):
        codes = column.to_physical().cast(int).fill_null(-1).to_numpy()
        return Series("category", codes, "Enum", tuple(kind.categories), True)
    if getattr(kind, "time_zone", None):
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if kind.is_integer() or kind.is_float() or name.startswith(("Date", "Duration")):
        return _from_values(column.to_numpy(), name, "integer" * kind.is_integer())
    return _from_objects(column.to_list(), name)


def _from_arrow(column: Any) -> Series:  # noqa: ANN401
    import pyarrow as pa

    kind, name = column.type, str(column.type)
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
        column = pa.concat_arrays(column.chunks) if hasattr(column, "chunks") else column
    if pa.types.is_dictionary(kind):
        codes = column.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        levels = _levels(column.dictionary.to_pylist())
        return Series("category", codes, name, levels, kind.ordered)
    whole = pa.types.is_integer(kind)
    if whole or pa.types.is_floating(kind) or pa.types.is_date(kind) \
            or pa.types.is_timestamp(kind) or pa.types.is_duration(kind):  # fmt: skip
        return _from_values(column.to_numpy(zero_copy_only=False), name, "integer" * whole)
    return _from_objects(column.to_pylist(), name)


def replaced(frame: ArrayLike, columns: Mapping[str, Series]) -> ArrayLike:
    """Returns a copy of a frame with some of its columns replaced."""
    library = library_of(frame)
    new = write(library, columns)
    if library == "pandas":
        new = new.set_axis(frame.index)
        if not hasattr(frame, "columns"):
            return new.iloc[:, 0].rename(frame.name)
        frame = frame.copy()
        for place, name in enumerate(map(str, frame.columns)):
            if name in columns:
                frame.isetitem(place, new[name])
        return frame
    if library == "polars" and hasattr(frame, "with_columns"):
        return frame.lazy().collect().with_columns(new.get_columns())
    if library == "arrow" and hasattr(frame, "set_column"):
        for place, name in enumerate(frame.column_names):
            frame = frame.set_column(place, name, new[name]) if name in columns else frame
        return frame
    return {**columns_of(frame), **new} if library == "dict" else new


def write(library: str, columns: Mapping[str, Series]) -> ArrayLike:
    """Returns a frame of a library, its columns of the types that they name.

    Integers that their type cannot hold get 64 bits.
    """
    columns = {name: _widened(series) for name, series in columns.items()}
    if library == "pandas":
        import pandas as pd

        return pd.DataFrame({name: _to_pandas(series) for name, series in columns.items()})
    if library == "polars":
        import polars as pl

        return pl.DataFrame([_to_polars(name, series) for name, series in columns.items()])
    if library == "arrow":
        import pyarrow as pa

        return pa.table({name: _to_arrow(series) for name, series in columns.items()})
    arrays = {name: _plain(series) for name, series in columns.items()}
    return arrays if library == "dict" else np.stack([*arrays.values()], 1)


def _widened(series: Series) -> Series:
    """Returns a column of integers with a type of 64 bits, if its own cannot hold them."""
    found = re.search(r"(?i)u?int(8|16|32|64)$", series.dtype)
    values = series.values[~series.missing] if found and series.kind == "integer" else ()
    if not len(values):
        return series
    own = np.iinfo(found[0].lower())
    if own.min <= values.min() and values.max() <= own.max:
        return series
    wide = "int64" if found[0].islower() else "Int64"
    return series._replace(dtype=series.dtype[: found.start()] + wide)


def _plain(series: Series) -> np.ndarray:
    """Returns a column as an array of its type; where values are missing, one that has them."""
    values = series.objects
    if series.kind in ("integer", "boolean") and values.dtype.kind == "f":
        return values
    return values.astype(series.dtype)


def _to_pandas(series: Series) -> Any:  # noqa: ANN401
    import pandas as pd

    if series.dtype.startswith(ARROW):
        array = _to_arrow(series._replace(dtype=series.dtype.removeprefix(ARROW)))
        return pd.Series(pd.arrays.ArrowExtensionArray(array))
    if series.dtype == "category":
        codes, levels = series.values, list(series.levels)
        return pd.Series(pd.Categorical.from_codes(codes, levels, ordered=series.ordered))
    column, dtype = pd.Series(series.objects), pd.api.types.pandas_dtype(series.dtype)
    if series.kind in ("integer", "boolean") and isinstance(dtype, np.dtype):
        return column if column.isna().any() else column.astype(dtype)
    if getattr(dtype, "tz", None) is not None:
        column = column.dt.tz_localize("UTC")
    return column.astype(dtype)


def _to_polars(name: str, series: Series) -> Any:  # noqa: ANN401
    import polars as pl

    base, values = series.dtype.partition("(")[0], series.objects
    dtype = getattr(pl, base)
    if base == "Enum":
        dtype = pl.Enum(list(series.levels))
    elif base in ("Datetime", "Duration"):
        unit = re.search(r"time_unit='(\w+)'", series.dtype)
        dtype = dtype(unit[1] if unit else "us")
    elif base == "Decimal":
        dtype = pl.Decimal(*map(int, re.findall(r"\d+", series.dtype)))
    values = values.tolist() if values.dtype == object else values
    column = pl.Series(name, values, nan_to_null=True).cast(dtype)
    if zone := re.search(r"time_zone='([^']+)'", series.dtype):
        return column.dt.replace_time_zone("UTC").dt.convert_time_zone(zone[1])
    return column


def _to_arrow(series: Series) -> Any:  # noqa: ANN401
    import pyarrow as pa

    kind = _arrow_type(series.dtype)
    if pa.types.is_dictionary(kind):
        codes = pa.array(series.values, mask=series.values < 0).cast(kind.index_type)
        levels = pa.array(series.levels).cast(kind.value_type)
        return pa.DictionaryArray.from_arrays(codes, levels, ordered=kind.ordered)
    array = pa.array(series.objects, from_pandas=True)
    if getattr(kind, "tz", None):
        array = array.cast(pa.timestamp("us", tz="UTC"))
    return array.cast(kind, safe=False)


def _arrow_type(name: str) -> Any:  # noqa: ANN401
    """Returns Arrow's type of a name."""
    import pyarrow as pa

    if found := re.fullmatch(r"dictionary<values=(.+), indices=(\w+), ordered=(\d)>", name):
        value, index = (_arrow_type(alias) for alias in (found[1], found[2]))
        return pa.dictionary(index, value, ordered=found[3] == "1")
    if found := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", name):
        return pa.timestamp(found[1], tz=found[2])
    if found := re.fullmatch(r"(decimal\d+)\((\d+), (-?\d+)\)", name):
        return getattr(pa, found[1])(int(found[2]), int(found[3]))
    return pa.type_for_alias(name)
