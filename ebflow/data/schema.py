"""The manifest of a prepared data set: what its shards hold, and how each row got its split.

A prepared folder holds Parquet shards and ``manifest.json``. A shard has two columns: ``x``, a
fixed-size list of the D features of an example, and ``row``, its row number in the source; one of
data with classes has a third, ``label``. The manifest is canonical JSON, so that
``sha256sum manifest.json`` is its digest.
"""

__all__ = ["SELECTION", "SPLITS", "VERSION", "Manifest", "Shard", "file_sha256"]

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ebflow.data.schema_checks import VERSION, read_manifest

SPLITS = ("train", "validation", "test")

SELECTION = "selection"
"""A further split, on which a search of configurations names its winner."""


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a split: its name in the folder, rows, bytes and SHA-256."""

    split: str
    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Describes a prepared data set.

    Arguments:
        name: Name of the data set.
        source: ``name``, ``column`` (of the fixed-size list, or None) and ``files``, a list of
            ``file``, ``rows`` and ``sha256``.
        shape: Shape of an example; its product is D.
        dtype: ``uint8``, ``float32`` or ``float64``.
        levels: Number of grey levels of integer data (values 0 … levels - 1), None if continuous.
        columns: Names of the D features of tabular data, else None.
        counts: Rows of each split.
        shards: The files, in the order in which they are read.
        statistics: ``mean``, ``std`` (divided by n, not n - 1), ``min`` and ``max`` of each
            feature over the training split, in raw units.
        seed: Seed of the permutation that decided the splits.
        assignment: The rule by which a row number got its split.
        warnings: What a user should know about the data.
        classes: The number of classes C, of labels 0 … C − 1; None of data without.
        version: Version of this format.
    """

    name: str
    source: dict[str, Any]
    shape: tuple[int, ...]
    dtype: str
    levels: int | None
    columns: tuple[str, ...] | None
    counts: dict[str, int]
    shards: tuple[Shard, ...]
    statistics: dict[str, list[float]]
    seed: int
    assignment: str
    warnings: tuple[str, ...] = ()
    classes: int | None = None
    version: int = VERSION

    @property
    def width(self) -> int:
        """The number of features D."""
        return math.prod(self.shape)

    @cached_property
    def text(self) -> str:
        """Canonical JSON: sorted keys, no spaces, shortest exact floats."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

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
        found = read_manifest(Path(folder) / "manifest.json")
        columns = found["columns"]
        changed = {
            "shape": tuple(found["shape"]),
            "columns": None if columns is None else tuple(columns),
            "shards": tuple(Shard(**entry) for entry in found["shards"]),
            "warnings": tuple(found["warnings"]),
        }
        return cls(**found | changed)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
