"""What a prepared data set is: how each row gets its split, its shards, and its manifest.

A source may name the split of its rows, in a column of text or by their order. What it does not
name is drawn from its training rows, which are all rows of a source that names none: a seeded
permutation gives every row a rank, or the last row has the first rank. By rank come test,
validation, selection and training rows; rows beyond are left out. So the test split stays as it
is when the other counts change, and a smaller training split is part of a larger one. Of a split
that the source names, the rows of the lowest ranks are used.

A prepared folder holds Parquet shards and ``manifest.json``. A shard has two columns: ``x``, a
fixed-size list of the D features of an example, and ``row``, its row number in the source; one of
data with classes has another, ``label``, and one of data with contexts ``context``, a fixed-size
list of numbers: those of levels where a column has levels. The manifest is canonical JSON, so that
``sha256sum manifest.json`` is its digest.
"""

__all__ = ["FEW", "SELECTION", "SPLITS", "Columns", "Context", "Counts", "Manifest", "Shard",
           "Statistics", "assign", "read_shard", "rule", "shard_schema",
           "split_counts"]  # fmt: skip

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from ebflow.errors import BadInput
from pipelines.data.messages import damage, first_error, short, type_name

VERSION = 4

SPLITS = ("train", "validation", "test")

SELECTION = "selection"
"""A further split, on which a search of configurations names its winner."""

FEW = 10
"""Most values of a feature of few."""

MINIMUM = 2


class Counts(NamedTuple):
    """Rows of each split, in the order of their numbers."""

    train: int
    validation: int
    test: int
    selection: int = 0

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits; the selection split is one only if it has rows."""
        return self._fields if self.selection else SPLITS

    def of(self, split: str) -> int:
        """Returns the rows of the split of that name."""
        return getattr(self, split)

    @classmethod
    def of_codes(cls, codes: np.ndarray) -> "Counts":
        """Returns the rows of each split, of the number of each row's split, -1 of none."""
        return cls(*np.bincount(codes + 1, minlength=5)[1:].tolist())


def split_counts(
    named: Counts,
    *,
    label: str,
    validation: int | float,
    test: int | float,
    selection: int | float | None = None,
    rows: int | None = None,
) -> Counts:
    """Turns counts or fractions into rows of each split.

    Arguments:
        named: Rows that the source names for each split: the most of these. What is drawn comes
            from the training rows.
        label: Name of the source for messages.
        validation: Rows of the validation split, or their fraction of the rows used.
        test: The same for the test split.
        selection: The same for the selection split; None: there is none.
        rows: Rows to use in all; None uses every row.

    Raises:
        BadInput: If a count or fraction is out of range, or leaves fewer than two training rows.
    """
    total = sum(named)
    if rows is not None and not (type(rows) is int and 1 <= rows <= total):
        raise BadInput(f"rows: found {rows!r}, expected 1 … {total} (the rows of {label})")
    sizes = {"validation": validation, "test": test, SELECTION: selection}
    used = total if rows is None else rows
    held = {name: _held(name, size, used) for name, size in sizes.items()}
    drawn = sum(count for name, count in held.items() if not named.of(name))
    train = named.train - drawn if rows is None else rows - sum(held.values())
    counts = Counts(train, **held)
    if train < MINIMUM:
        selected = f", {counts.selection} for selection" if counts.selection else ""
        raise BadInput(
            f"{label}: found {sum(counts)} row{'s' * (sum(counts) != 1)}, expected at least "
            f"{sum(counts[1:]) + MINIMUM}: {counts.validation} for validation{selected}, "
            f"{counts.test} for test and {MINIMUM} for training"
        )
    wanted = counts._replace(train=train + drawn)
    for split, count, most in zip(named._fields, wanted, named, strict=True):
        if most and count > most:
            raise BadInput(
                f"{label}: found {count} rows wanted for {split}, expected at most {most} "
                "(the source fixes its splits)"
            )
    return counts


def assign(named: np.ndarray, counts: Counts, seed: int | None) -> np.ndarray:
    """Returns each row's number of ``Counts``, or -1 if it is left out, as int8 with shape (N,).

    Arguments:
        named: The number of the split that the source names for each row, with shape (N,); 0
            where it names none.
        counts: Rows of each split.
        seed: Seed of the permutation; None: the last row has the first rank.
    """
    order, found = np.arange(len(named))[::-1], np.full(len(named), -1, np.int8)
    if seed is not None:
        order = np.argsort(np.random.Generator(np.random.PCG64(seed)).permutation(len(named)))
    pools = {code: order[named[order] == code] for code in np.unique(named).tolist()}
    for code in (2, 1, 3, 0):
        pool = pools.get(code, pools[0])
        found[pool[: counts[code]]] = code
        if code not in pools:
            pools[0] = pool[counts[code] :]
    return found


def rule(named: Counts, counts: Counts, seed: int | None, column: str | None) -> str:
    """Returns in a line how the rows got their splits."""
    drawn = [name for name in counts.splits[1:] if not named.of(name)]
    law = "the last" if seed is None else f"random (PCG64, seed {seed})"
    if named.train == sum(named):
        return f"{', '.join(drawn)} rows are {law} of all rows"
    rows = ", ".join(f"{count} {name}" for name, count in named._asdict().items() if count)
    source = f"column {column} names" if column else "the order of the source's rows fixes"
    others = f"; {', '.join(drawn)} rows are {law} of the training rows" if drawn else ""
    return f"{source} {rows} rows{others}"


def _held(name: str, size: int | float | None, used: int) -> int:
    if size is None:
        return 0
    if type(size) is int and size >= 1:
        return size
    if isinstance(size, float) and 0 < size < 1:
        return max(1, round(used * size))
    raise BadInput(
        f"{name}: found {size!r}, expected a whole number of rows of at least 1, "
        "or a fraction between 0 and 1"
    )


Name = Annotated[str, Field(pattern=r"^[^/\\]+\.parquet$")]
Numbers = tuple[float, ...]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Shard(_Record):
    """One Parquet file of a split: its name in the folder, rows, bytes and SHA-256."""

    split: str
    file: Name
    rows: PositiveInt
    bytes: PositiveInt
    sha256: str


class Named(_Record):
    """Columns of a table, in order: name, Arrow type and, where known, unit."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    units: tuple[str | None, ...]


class Columns(Named):
    """The D columns of tabular data.

    Arguments:
        timestamps: The unit in which timestamps are numbers, None of data without.
        categories: The levels of each column of categories, by their codes; None of numbers.
    """

    timestamps: str | None
    categories: tuple[tuple[str, ...] | None, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of levels of each column, 0 of numbers."""
        return tuple(len(levels or ()) for levels in self.categories)

    @property
    def measured(self) -> list[str]:
        """The names of the columns with their units."""
        pairs = zip(self.names, self.units, strict=True)
        return [f"{name} [{unit}]" if unit else name for name, unit in pairs]


class Context(Named):
    """The columns that rows are given, in order, as they enter a flow.

    Arguments:
        levels: Of each column the levels among training rows, None of one of numbers.
        mean: Of each element, one-hot where there are levels, over the training split.
        std: Its standard deviation, which divides by n.
        label: The column of classes, if it is one of them.
    """

    levels: tuple[tuple[str, ...] | None, ...]
    mean: Numbers
    std: Numbers
    label: str | None

    @property
    def width(self) -> int:
        """The number C of elements."""
        return len(self.mean)


class Statistics(_Record):
    """Of each feature over the training split, in raw units; ``std`` divides by n, not n - 1."""

    mean: Numbers
    std: Numbers
    min: Numbers
    max: Numbers


class Manifest(_Record):
    """Describes a prepared data set.

    Arguments:
        name: Name of the data set.
        source: ``name``, ``column`` (of the fixed-size list, or None) and ``files``, a list of
            ``file``, ``rows`` and ``sha256``.
        shape: Shape of an example; its product is D.
        dtype: ``uint8``, ``float32`` or ``float64``.
        levels: Number of grey levels of integer data (values 0 … levels - 1), None if continuous.
        columns: The columns of tabular data, else None.
        counts: Rows of each split.
        shards: The files, in the order in which they are read.
        statistics: Of the training split.
        seed: Seed of the permutation that decided the splits.
        assignment: How the rows got their splits.
        incomplete: Rows of a split that lack entries, NaN in its shards, of splits that have any.
        warnings: What a user should know about the data.
        few: The features of at most ``FEW`` values among training rows, but for those of
            categories: where nothing dequantizes one, likelihoods of it are unbounded.
        classes: The number of classes C, of labels 0 … C − 1; None of data without.
        context: The columns that rows are given; None of data without.
        version: Version of this format.
    """

    name: str
    source: dict[str, Any]
    shape: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    dtype: Literal["uint8", "float32", "float64"]
    levels: Annotated[int, Field(ge=2, le=256)] | None
    columns: Columns | None
    counts: dict[str, PositiveInt]
    shards: Annotated[tuple[Shard, ...], Field(min_length=1)]
    statistics: Statistics
    seed: Annotated[int, Field(ge=0)]
    assignment: str
    incomplete: dict[str, PositiveInt] = {}
    warnings: tuple[str, ...] = ()
    few: tuple[Annotated[int, Field(ge=0)], ...] = ()
    classes: Annotated[int, Field(ge=2)] | None = None
    context: Context | None = None
    version: Literal[4] = VERSION

    @property
    def width(self) -> int:
        """The number of features D."""
        return math.prod(self.shape)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of a shard."""
        beside = ["row"] if self.classes is None else ["row", "label"]
        given = 0 if self.context is None else len(self.context.names)
        return shard_schema(self.width, self.dtype, beside, given=given)

    @cached_property
    def text(self) -> str:
        """Canonical JSON: sorted keys, no spaces, shortest exact floats."""
        found = self.model_dump(mode="json")
        return json.dumps(found, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, which holds the SHA-256 of every shard."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def of(self, split: str) -> tuple[Shard, ...]:
        """Returns the shards of a split, in order."""
        return tuple(shard for shard in self.shards if shard.split == split)

    def save(self, folder: str | Path) -> None:
        """Writes ``manifest.json`` into the folder."""
        (Path(folder) / "manifest.json").write_bytes(self.text.encode())

    @classmethod
    def load(cls, folder: str | Path) -> "Manifest":
        """Reads ``manifest.json``; raises BadInput if it is missing, damaged or contradictory."""
        path = Path(folder) / "manifest.json"
        try:
            found = cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise BadInput(f"{path}: no such file, expected the manifest of a data set") from None
        except OSError as error:
            raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
        except ValidationError as error:
            raise BadInput(f"{path}{first_error(error)}") from None
        _check(path, found)
        return found


def _check(path: Path, found: Manifest) -> None:
    """Raises BadInput unless the numbers of a manifest agree with each other."""
    rows: Counter[str] = Counter()
    for shard in found.shards:
        rows[shard.split] += shard.rows
    if rows != found.counts:
        raise BadInput(
            f"{path}, key 'counts': found {short(found.counts)}, expected {short(rows)}, the "
            "rows of the shards"
        )
    counts = {f"statistics.{key}": (len(values), found.width) for key, values in found.statistics}
    if (columns := found.columns) is not None:
        for key in ("types", "units", "categories"):
            counts[f"columns.{key}"] = len(getattr(columns, key)), len(columns.names)
        counts["columns.names"] = len(columns.names), found.width
    for key, (count, expected) in counts.items():
        if count != expected:
            raise BadInput(
                f"{path}, key {key!r}: found {count} entries, expected {expected}, as of its shape"
            )


def shard_schema(
    width: int,
    dtype: str,
    beside: Sequence[str],
    metadata: dict[str, str] | None = None,
    given: int = 0,
) -> pa.Schema:
    """Returns the schema of a prepared shard: rows ``x``, integers beside them, and contexts.

    These are ``given`` numbers of double precision a row, if there are any.
    """
    types = {"x": _lists(dtype, width), **dict.fromkeys(beside, pa.int64())}
    types |= {"context": _lists("float64", given)} if given else {}
    fields = [pa.field(name, type, nullable=False) for name, type in types.items()]
    return pa.schema(fields, metadata=metadata)


def _lists(dtype: str, width: int) -> pa.DataType:
    return pa.list_(pa.field("element", pa.from_numpy_dtype(dtype), nullable=False), width)


def read_shard(path: Path, column: str, schema: pa.Schema, rows: int) -> list[np.ndarray]:
    """Returns the pieces of a column of a prepared shard, with shape (B, D) or (B,).

    Raises:
        BadInput: If the shard is damaged, or has another schema or number of rows.
    """
    with damage(path, column), pq.ParquetFile(path) as file:
        found, count = file.schema_arrow, file.metadata.num_rows
        if not found.equals(schema) or count != rows:
            one, two = (
                ", ".join(f"{f.name} {type_name(f.type)}" for f in s) for s in (found, schema)
            )
            raise BadInput(
                f"{path}: found {count} rows of {one[:300]}, expected {rows} of {two} (manifest)"
            )
        chunks = file.read([column])[column].chunks
        if not pa.types.is_fixed_size_list(schema.field(column).type):
            return [chunk.to_numpy() for chunk in chunks]
        return [c.flatten().to_numpy().reshape(len(c), -1) for c in chunks]
