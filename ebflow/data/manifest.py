"""The manifest of a prepared data set: what its shards hold, and how each row got its split.

A prepared folder holds Parquet shards and ``manifest.json``. A shard has two columns: ``x``, a
fixed-size list of the D features of an example, and ``row``, its row number in the source; one of
data with classes has another, ``label``, and one of data with contexts ``context``, a fixed-size
list of numbers: those of levels where a column has levels. The manifest is canonical JSON, so that
``sha256sum manifest.json`` is its digest.
"""

__all__ = ["Columns", "Context", "Manifest", "Shard", "Statistics", "first_error"]

import hashlib
import json
import math
import re
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from ..errors import BadInput
from . import titles, width

VERSION = 4

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
    """The columns of tabular data, which make D features.

    Arguments:
        timestamps: The unit in which timestamps are numbers, None of data without.
        categories: Of each column the levels, None of one of numbers. A column of categories is
            a feature for each of its levels, 0 or 1.
    """

    timestamps: str | None
    categories: tuple[tuple[str, ...] | None, ...]

    @property
    def features(self) -> list[str]:
        """The names of the D features, as ``age`` and ``region=north``."""
        return titles(self.names, self.categories)

    @property
    def titles(self) -> list[str]:
        """Names of axes: of features with their units."""
        pairs = zip(self.names, self.units, strict=True)
        named = [f"{name} [{unit}]" if unit else name for name, unit in pairs]
        return titles(named, self.categories)


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
    classes: Annotated[int, Field(ge=2)] | None = None
    context: Context | None = None
    version: Literal[4] = VERSION

    @property
    def width(self) -> int:
        """The number of features D."""
        return math.prod(self.shape)

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


def first_error(error: ValidationError) -> str:
    """Returns the end of a line on the first thing wrong; if that is a version, on that alone."""
    found = error.errors(include_url=False, include_context=False)
    told = next((one for one in found if one["loc"] == ("version",)), found[0])
    expected = re.sub("^Input should", "expected it to", told["msg"])
    if not told["loc"]:
        return f": found no manifest of a data set ({expected})"
    value = "" if told["type"] == "missing" else f"found {_short(told['input'])}, "
    return f", key {'.'.join(map(str, told['loc']))[:60]!r}: {value}{expected}"


def _check(path: Path, found: Manifest) -> None:
    """Raises BadInput unless the numbers of a manifest agree with each other."""
    rows: Counter[str] = Counter()
    for shard in found.shards:
        rows[shard.split] += shard.rows
    if rows != found.counts:
        raise BadInput(
            f"{path}, key 'counts': found {_short(found.counts)}, expected {_short(rows)}, the "
            "rows of the shards"
        )
    counts = {f"statistics.{key}": (len(values), found.width) for key, values in found.statistics}
    if (columns := found.columns) is not None:
        for key in ("types", "units", "categories"):
            counts[f"columns.{key}"] = len(getattr(columns, key)), len(columns.names)
        counts["columns.names"] = width(columns.categories), found.width
    for key, (count, expected) in counts.items():
        if count != expected:
            raise BadInput(
                f"{path}, key {key!r}: found {count} entries, expected {expected}, as of its shape"
            )


def _short(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."
