"""The manifest of a prepared data set: ``manifest.json`` beside its shards.

A shard has the columns ``x``, a list of the D numbers of each row, and ``row``, its number in the
source. Data with classes have ``label``, and data with contexts ``context``, a list of their C
elements. The manifest is canonical JSON, so that ``sha256sum manifest.json`` is its digest.
"""

import hashlib
import json
import math
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pydantic
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, PositiveInt

from ebflow.errors import BadInput
from ebflow.tables import Columns
from pipelines.data.messages import first_error, short

Numbers = tuple[float, ...]


def _columns(value: object) -> Columns:
    """Returns columns from their description in JSON."""
    if isinstance(value, Columns):
        return value
    try:
        return Columns.from_dict(value)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"expected a description of columns ({error})") from None


Schema = Annotated[Columns, PlainValidator(_columns), PlainSerializer(Columns.to_dict)]


class Record(BaseModel):
    """A part of a manifest."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Shard(Record):
    """One file of a split: its name in the folder, rows, bytes and SHA-256."""

    split: str
    file: Annotated[str, Field(pattern=r"^[^/\\]+\.parquet$")]
    rows: PositiveInt
    bytes: PositiveInt
    sha256: str


class Context(Record):
    """The contexts of a data set."""

    columns: Schema  #: The columns; a category is one-hot in a context
    mean: Numbers  #: The mean of each element of a context over the training split
    std: Numbers  #: Its standard deviation, which divides by n
    label: str | None  #: The column of classes, if it is one of them

    @property
    def width(self) -> int:
        """The number C of elements."""
        return len(self.mean)


class Statistics(Record):
    """Statistics of each number of a row over the training split; ``std`` divides by n."""

    mean: Numbers
    std: Numbers
    min: Numbers
    max: Numbers


def shard_schema(width: int, dtype: str, *, classes: bool = False, context: int = 0) -> pa.Schema:
    """Returns the schema of shards of rows with D = ``width`` and C = ``context``."""
    types = {"x": _lists(dtype, width), "row": pa.int64()}
    types |= {"label": pa.int64()} if classes else {}
    types |= {"context": _lists("float64", context)} if context else {}
    return pa.schema([pa.field(name, type, nullable=False) for name, type in types.items()])


def _lists(dtype: str, width: int) -> pa.DataType:
    return pa.list_(pa.field("element", pa.from_numpy_dtype(dtype), nullable=False), width)


class Manifest(Record):
    """The description of a prepared data set."""

    name: str  #: The name of the data set
    #: ``name``, ``column`` (of fixed-size lists, or None) and ``files``, a list of ``file``,
    #: ``rows`` and ``sha256``
    source: dict[str, Any]
    #: The shape of a row; D is its product
    shape: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    dtype: Literal["uint8", "float32", "float64"]  #: ``uint8``, ``float32`` or ``float64``
    #: The number of grey levels of integer data; None: the data are continuous
    levels: Annotated[int, Field(ge=2, le=256)] | None
    columns: Schema | None  #: The columns of a table; None: the data are fixed-size lists
    counts: dict[str, PositiveInt]  #: Rows of each split
    #: The files, in the order of their rows
    shards: Annotated[tuple[Shard, ...], Field(min_length=1)]
    statistics: Statistics  #: Statistics of the training split
    seed: Annotated[int, Field(ge=0)]  #: The seed of the permutation that decided the splits
    assignment: str  #: A sentence about the way in which the rows were assigned to splits
    #: Rows with missing values of each split that has any; they are NaN
    incomplete: dict[str, PositiveInt] = {}
    warnings: tuple[str, ...] = ()  #: Sentences about the data for the user
    #: The number of classes; None: there are none
    classes: Annotated[int, Field(ge=2)] | None = None
    context: Context | None = None  #: The contexts; None: there are none
    version: Literal[6] = 6  #: The version of this format

    @property
    def width(self) -> int:
        """The number D of a row."""
        return math.prod(self.shape)

    @property
    def described(self) -> Columns | None:
        """The columns of a table together with those of its contexts."""
        if self.columns is None or self.context is None:
            return self.columns
        return Columns(self.columns, self.columns.library, self.context.columns)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of a shard."""
        context = 0 if self.context is None else self.context.width
        classes = self.classes is not None
        return shard_schema(self.width, self.dtype, classes=classes, context=context)

    @cached_property
    def text(self) -> str:
        """Canonical JSON: sorted keys, no spaces, shortest exact floats."""
        plain = self.model_dump(mode="json")
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, which has the SHA-256 of every shard."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def of(self, split: str) -> tuple[Shard, ...]:
        """Returns the shards of a split, in order."""
        return tuple(shard for shard in self.shards if shard.split == split)

    def save(self, folder: str | Path) -> None:
        """Writes ``manifest.json`` into the folder."""
        (Path(folder) / "manifest.json").write_bytes(self.text.encode())

    @classmethod
    def load(cls, folder: str | Path) -> "Manifest":
        """Reads ``manifest.json``; raises BadInput if it is missing, corrupt or contradictory."""
        path = Path(folder) / "manifest.json"
        try:
            manifest = cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            expected = "the manifest of a data set"
            raise BadInput("no such file", file=path, expected=expected) from None
        except OSError as error:
            raise BadInput(f"cannot be read ({error.strerror})", file=path) from None
        except pydantic.ValidationError as error:
            raise first_error(error, path) from None
        rows: Counter[str] = Counter()
        for shard in manifest.shards:
            rows[shard.split] += shard.rows
        if rows != manifest.counts:
            found, expected = short(manifest.counts), f"{short(rows)}, the rows of the shards"
            raise BadInput(file=path, option="key 'counts'", found=found, expected=expected)
        return manifest
