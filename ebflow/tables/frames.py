"""Columns of frames as NumPy arrays, and back: pandas, polars, Arrow, dictionaries, arrays.

Nothing here imports a frame library before a frame of it is read or written.
"""

__all__ = ["ArrayLike", "Series", "columns_of", "is_frame", "key", "library_of",
           "read", "write"]  # fmt: skip

import datetime
import numbers
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

ArrayLike = Any
"""A data frame of pandas or polars, an Arrow table, a mapping of arrays, an array or a tensor."""

LARGEST = 2**53
"""Integers beyond this one are not exact in float64."""

TOO_WIDE = "expected whole numbers up to 2^53: leave the column out, or make it text"

ARROW = "arrow:"
"""Stands before the names of Arrow's types in pandas' frames."""

UNITS = {"pandas": "pandas", "polars": "polars", "pyarrow": "arrow", "torch": "tensor"}
"""Names of the libraries, by their packages."""


class Series(NamedTuple):
    """A column in NumPy's types.

    Attributes:
        kind: ``number``, ``integer``, ``boolean`` (float64 with NaN), ``time``, ``duration``
            (microseconds with NaT), ``text`` (objects with None) or ``category`` (codes with −1).
        values: The values, with shape (N,).
        dtype: The name of the column's type in its library.
        levels: The levels of the codes of a category, in order.
        ordered: Whether the order of the levels has a meaning.
    """

    kind: str
    values: np.ndarray
    dtype: str
    levels: tuple[Any, ...] = ()
    ordered: bool = False

    @property
    def missing(self) -> np.ndarray:
        """Marks the missing values, with shape (N,)."""
        if self.kind == "text":
            return np.array([value is None for value in self.values], bool)
        if self.kind == "category":
            return self.values < 0
        return np.isnat(self.values) if self.values.dtype.kind in "mM" else np.isnan(self.values)

    @property
    def objects(self) -> np.ndarray:
        """The values; those of a category are its levels, None if one is missing."""
        if self.kind != "category":
            return self.values
        return np.array([*self.levels, None], object)[self.values]

    def filled(self, other: "Series") -> "Series":
        """Returns the column with its missing values replaced by another column's."""
        values = other.objects
        if self.kind == "category":
            places = {key(level): code for code, level in enumerate(self.levels)}
            values = np.array([places.get(key(value), -1) for value in values], np.int64)
        return self._replace(values=np.where(self.missing, values, self.values))


def library_of(frame: ArrayLike) -> str:
    """Returns ``pandas``, ``polars``, ``arrow``, ``dict``, ``tensor`` or ``numpy``."""
    if isinstance(frame, Mapping) and not hasattr(frame, "shape"):  # as sparse matrices have
        return "dict"
    return UNITS.get(type(frame).__module__.partition(".")[0], "numpy")


def is_frame(frame: ArrayLike) -> bool:
    """Returns whether columns go by names: not those of arrays, tensors and lists."""
    return library_of(frame) not in ("numpy", "tensor")


def columns_of(frame: ArrayLike, what: str = "x") -> dict[str, Any]:
    """Returns the columns of a frame by their names, those of an array by their numbers.

    Raises:
        ValueError: if two columns have one name, or an array has not two dimensions.
    """
    library = library_of(frame)
    if library == "dict":
        return {str(name): column for name, column in frame.items()}
    if library in ("numpy", "tensor"):
        array = np.asarray(frame)
        if array.ndim != 2:
            raise ValueError(f"{what}: found shape {array.shape}, expected (rows, columns)")
        return {str(k): array[:, k] for k in range(array.shape[1])}
    frame = frame.collect() if hasattr(frame, "collect") else frame
    if not hasattr(frame, "columns"):  # a single column
        return {str(getattr(frame, "name", None) or "0"): frame}
    names = [str(name) for name in getattr(frame, "column_names", frame.columns)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{what}: found column {twice[0]} twice, expected different names")
    if library == "pandas":
        return {name: frame.iloc[:, k] for k, name in enumerate(names)}
    return {name: frame[name] for name in names}


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


def _from_numpy(column: Any, dtype: str | None = None) -> Series:  # noqa: ANN401
    values = np.asarray(column)
    values = values.reshape(-1) if values.ndim < 2 else values
    letter = values.dtype.kind
    dtype = dtype or ("str" if letter == "U" else str(values.dtype))  # of any length
    if values.ndim > 1 or letter not in "biufmMOUT":
        raise TypeError(f": found {dtype}, expected numbers, text, categories or times: leave it "
                        "out, or make such columns of it")  # fmt: skip
    if letter in "mM":
        kind, unit = ("time", "datetime64[us]") if letter == "M" else ("duration", "m8[us]")
        return Series(kind, values.astype(unit), dtype)
    if letter in "OUT":
        return _from_objects(values.astype(object), dtype)
    kind = {"b": "boolean", "f": "number"}.get(letter, "integer")
    return Series(kind, _exact(values), dtype)


def _scattered(present: np.ndarray, rows: np.ndarray, dtype: str) -> Series:
    """Returns numbers in the rows that have one, with NaN in the others."""
    found, values = _from_numpy(present, dtype), np.full(len(rows), np.nan)
    values[rows] = found.values
    return found._replace(values=values)


def _exact(values: np.ndarray) -> np.ndarray:
    """Returns numbers in float64; raises ValueError at an integer that would be rounded."""
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        wide = (values > LARGEST) | (values < -LARGEST)
        for row in np.flatnonzero(wide)[:1]:
            raise ValueError(f", row {row}: found {values[row]}, {TOO_WIDE}")
    return values.astype(np.float64)


def _from_objects(values: np.ndarray, dtype: str) -> Series:
    """Returns Python objects as numbers, booleans, times or text, by what they all are."""
    missing = np.array([v is None or v != v or type(v).__name__ == "NAType" for v in values], bool)
    present = values[~missing]
    types = set(map(type, present))
    for kind, base in (("boolean", bool | np.bool_), ("integer", numbers.Integral),
                       ("number", numbers.Real), ("number", numbers.Number)):  # fmt: skip
        if types and all(issubclass(t, base) for t in types):
            found = np.full(len(values), np.nan)
            wide = [v for v in present if kind == "integer" and abs(v) > LARGEST]
            if wide:
                raise ValueError(f": found {wide[0]}, {TOO_WIDE}")
            found[~missing] = [float(v) for v in present]
            return Series(kind, found, dtype)
    if types and all(issubclass(t, datetime.date | np.datetime64) for t in types):
        found = np.full(len(values), "NaT", "datetime64[us]")
        found[~missing] = [_naive(v) for v in present]
        return Series("time", found, dtype)
    for odd in types - {t for t in types if issubclass(t, str | numbers.Number | np.bool_)}:
        raise TypeError(f": found {odd.__name__}, expected numbers, text, categories or times: "
                        "leave it out, or make such columns of it")  # fmt: skip
    found = np.full(len(values), None, object)
    found[~missing] = [v if isinstance(v, str) else key(v) for v in present]
    return Series("text", found, dtype)


def _naive(value: datetime.date) -> object:
    """Returns a time as NumPy takes it: without its zone, in UTC."""
    if getattr(value, "tzinfo", None) is None:
        return value
    return value.astimezone(datetime.UTC).replace(tzinfo=None)


def _from_pandas(column: Any) -> Series:  # noqa: ANN401
    import pandas as pd

    column = column if isinstance(column, pd.Series) else pd.Series(column)
    dtype, name = column.dtype, str(column.dtype)
    if hasattr(column, "cat"):
        levels, codes = tuple(column.cat.categories.tolist()), column.cat.codes.to_numpy()
        return Series("category", codes.astype(np.int64), name, levels, bool(column.cat.ordered))
    if hasattr(dtype, "pyarrow_dtype"):
        found = _from_arrow(column.array.__arrow_array__())
        return found._replace(dtype=ARROW + found.dtype)
    if getattr(dtype, "tz", None) is not None:
        return _from_numpy(column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(), name)
    letter = getattr(dtype, "kind", "O")
    if isinstance(dtype, np.dtype) and letter != "O":
        return _from_numpy(column.to_numpy(), name)
    if letter in "biuf":  # with a missing value of its own
        present = column.dropna().to_numpy(dtype=f"{letter}{dtype.itemsize}")
        return _scattered(present, column.notna().to_numpy(), name)
    return _from_objects(column.astype(object).to_numpy(), name)


def _from_polars(column: Any) -> Series:  # noqa: ANN401
    kind, name = column.dtype, str(column.dtype)
    if name.startswith("Enum"):
        levels = tuple(kind.categories)
        numbers = {level: code for code, level in enumerate((*levels, None))}
        codes = [numbers[level] for level in column.to_list()]
        codes = np.where(np.array(codes) == len(levels), -1, codes)
        return Series("category", codes, "Enum", levels, True)
    if kind.is_integer() and column.null_count():
        present = column.drop_nulls().to_numpy()
        return _scattered(present, column.is_not_null().to_numpy(), name)
    if kind.is_float() or kind.is_integer() or name.startswith(("Date", "Duration")):
        naive = column.dt.replace_time_zone(None) if "time_zone='" in name else column
        if naive is not column:
            naive = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return _from_numpy(naive.to_numpy(), name)
    return _from_objects(np.array([*column.to_list(), None], object)[:-1], name)


def _from_arrow(column: Any) -> Series:  # noqa: ANN401
    import pyarrow as pa

    kind, name = column.type, str(column.type)
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
        column = pa.concat_arrays(column.chunks) if hasattr(column, "chunks") else column
    if pa.types.is_dictionary(kind):
        codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return Series("category", codes, name, tuple(column.dictionary.to_pylist()), kind.ordered)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_duration(kind):
        own = pa.duration("us") if pa.types.is_duration(kind) else pa.timestamp("us")
        naive = column.cast(pa.timestamp(kind.unit)) if pa.types.is_timestamp(kind) else column
        return _from_numpy(naive.cast(own, safe=False).to_numpy(zero_copy_only=False), name)
    if pa.types.is_integer(kind):
        present = column.drop_null().to_numpy(zero_copy_only=False)
        return _scattered(present, column.is_valid().to_numpy(zero_copy_only=False), name)
    if pa.types.is_floating(kind):
        return _from_numpy(column.to_numpy(zero_copy_only=False), name)
    if pa.types.is_null(kind):
        return Series("number", np.full(len(column), np.nan), name)
    return _from_objects(np.array([*column.to_pylist(), None], object)[:-1], name)


def write(library: str, columns: Mapping[str, Series]) -> ArrayLike:
    """Returns a frame of a library, its columns of the types that they name."""
    if library in ("numpy", "tensor"):
        arrays = [_plain(series) for series in columns.values()]
        return np.stack(arrays, 1) if arrays else np.empty((0, 0))
    if library == "dict":
        return {name: _plain(series) for name, series in columns.items()}
    return {"pandas": _to_pandas, "polars": _to_polars, "arrow": _to_arrow}[library](columns)


def _plain(series: Series) -> np.ndarray:
    """Returns a column as an array of its type; where values are missing, one that has them."""
    values = series.objects
    if series.kind in ("integer", "boolean") and np.isnan(values).any():
        return values
    return values.astype(series.dtype)


def _to_pandas(columns: Mapping[str, Series]) -> ArrayLike:
    import pandas as pd

    return pd.DataFrame({name: _pandas_series(series) for name, series in columns.items()})


def _pandas_series(series: Series) -> Any:  # noqa: ANN401
    import pandas as pd

    if series.dtype.startswith(ARROW):
        array = _arrow_array(series._replace(dtype=series.dtype.removeprefix(ARROW)))
        return pd.Series(pd.arrays.ArrowExtensionArray(array))
    if series.dtype == "category":
        codes, levels = series.values, list(series.levels)
        return pd.Series(pd.Categorical.from_codes(codes, levels, ordered=series.ordered))
    if series.kind == "category":
        return pd.Series(series.objects).astype(series.dtype)
    own = pd.api.types.pandas_dtype(series.dtype)
    if series.kind in ("integer", "boolean"):
        if np.isnan(series.values).any():
            nullable = not isinstance(own, np.dtype)
            return (
                pd.Series(series.values)
                .astype("Int64" if nullable else float)
                .astype(own if nullable else float)
            )
        return pd.Series(series.values.astype(np.int64)).astype(own)
    found = pd.Series(series.values)
    if getattr(own, "tz", None) is not None:
        found = found.dt.tz_localize("UTC")
    return found.astype(own)


def _to_polars(columns: Mapping[str, Series]) -> ArrayLike:
    import polars as pl

    return pl.DataFrame([_polars_series(name, series) for name, series in columns.items()])


def _polars_series(name: str, series: Series) -> Any:  # noqa: ANN401
    import polars as pl

    base, own = series.dtype.partition("(")[0], None
    if base == "Enum":
        own = pl.Enum(list(series.levels))
    elif base in ("Datetime", "Duration"):
        unit = re.search(r"time_unit='(\w+)'", series.dtype)
        own = getattr(pl, base)(unit[1] if unit else "us")
    elif base == "Decimal":
        own = pl.Decimal(*map(int, re.findall(r"\d+", series.dtype)))
    values = series.objects
    found = pl.Series(name, values.tolist() if values.dtype == object else values)
    if series.kind in ("integer", "boolean", "number"):
        found = found.fill_nan(None)
    if series.kind == "boolean":
        found = found.cast(pl.Int8)
    found = found.cast(own or getattr(pl, base))
    if zone := re.search(r"time_zone='([^']+)'", series.dtype):
        return found.dt.replace_time_zone("UTC").dt.convert_time_zone(zone[1])
    return found


def _to_arrow(columns: Mapping[str, Series]) -> ArrayLike:
    import pyarrow as pa

    arrays = {name: _arrow_array(series) for name, series in columns.items()}
    return pa.table(arrays)


def _arrow_array(series: Series) -> Any:  # noqa: ANN401
    import pyarrow as pa

    kind = arrow_type(series.dtype)
    if pa.types.is_dictionary(kind):
        codes = pa.array(series.values, mask=series.values < 0).cast(kind.index_type)
        levels = pa.array(series.levels).cast(kind.value_type)
        return pa.DictionaryArray.from_arrays(codes, levels, ordered=kind.ordered)
    values = series.objects
    found = pa.array(values, from_pandas=True)
    if series.kind == "boolean":
        found = found.cast(pa.int8())
    if getattr(kind, "tz", None):
        found = found.cast(pa.timestamp("us", tz="UTC"))
    return found.cast(kind, safe=False)


def arrow_type(name: str) -> Any:  # noqa: ANN401
    """Returns Arrow's type of a name."""
    import pyarrow as pa

    if found := re.fullmatch(r"dictionary<values=(\w+), indices=(\w+), ordered=(\d)>", name):
        value, index = (pa.type_for_alias(alias) for alias in (found[1], found[2]))
        return pa.dictionary(index, value, ordered=found[3] == "1")
    if found := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", name):
        return pa.timestamp(found[1], tz=found[2])
    if found := re.fullmatch(r"decimal128\((\d+), (-?\d+)\)", name):
        return pa.decimal128(int(found[1]), int(found[2]))
    return pa.type_for_alias(name)
