"""The manifest of a prepared data set: what its shards hold, and how each row got its split.

A prepared folder holds Parquet shards and ``manifest.json``. A shard has two columns: ``x``, a
fixed-size list of the D features of an example, and ``row``, its row number in the source. The
manifest is canonical JSON, so that ``sha256sum manifest.json`` is its digest.
"""

__all__ = ["SPLITS", "VERSION", "Manifest", "Shard", "file_sha256"]

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from ebflow.errors import BadInput

VERSION = 1
SPLITS = ("train", "validation", "test")
DTYPES = ("uint8", "float32", "float64")


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
        path = Path(folder) / "manifest.json"
        found = _parse(path)
        _check_keys(path, "", found, {field.name for field in fields(cls)})
        _check_version(path, found["version"])
        for key, (test, expected) in _RULES.items():
            if not test(found[key]):
                raise BadInput(
                    f"{path}, key {key}: found {_short(found[key])}, expected {expected}"
                )
        shards = tuple(_shard(path, i, entry) for i, entry in enumerate(found["shards"]))
        manifest = cls(
            **found
            | {
                "shape": tuple(found["shape"]),
                "shards": shards,
                "columns": None if found["columns"] is None else tuple(found["columns"]),
                "warnings": tuple(found["warnings"]),
            }
        )
        _check_counts(path, manifest)
        _check_widths(path, manifest)
        return manifest


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _parse(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{path}: no such file, expected the manifest of a data set") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise BadInput(
            f"{path}: not JSON ({error}), expected the manifest of a data set"
        ) from None
    if not isinstance(found, dict):
        raise BadInput(f"{path}: found {_short(found)}, expected a JSON object")
    return found


def _check_version(path: Path, version: object) -> None:
    if version != VERSION:
        raise BadInput(f"{path}, key version: found {_short(version)}, expected {VERSION}")


def _check_keys(path: Path, where: str, found: dict[str, Any], expected: set[str]) -> None:
    if missing := sorted(expected - found.keys()):
        raise BadInput(f"{path}{where}: missing key {missing[0]}")
    if unknown := sorted(found.keys() - expected):
        raise BadInput(f"{path}{where}: unknown key {unknown[0]}")


def _shard(path: Path, index: int, found: object) -> Shard:
    where = f", shards[{index}]"
    if not isinstance(found, dict):
        raise BadInput(f"{path}{where}: found {_short(found)}, expected a JSON object")
    _check_keys(path, where, found, {field.name for field in fields(Shard)})
    for key in ("split", "file", "sha256"):
        if not isinstance(found[key], str):
            raise BadInput(f"{path}{where}, key {key}: found {_short(found[key])}, expected text")
    for key in ("rows", "bytes"):
        if not _natural(found[key]):
            raise BadInput(f"{path}{where}, key {key}: found {_short(found[key])}, expected rows")
    if Path(found["file"]).name != found["file"]:
        raise BadInput(f"{path}{where}, key file: found {found['file']!r}, expected a plain name")
    return Shard(**found)


def _check_counts(path: Path, manifest: Manifest) -> None:
    for split in sorted({shard.split for shard in manifest.shards} | manifest.counts.keys()):
        rows = sum(shard.rows for shard in manifest.of(split))
        if manifest.counts.get(split) != rows:
            raise BadInput(
                f"{path}, split {split}: found {rows} rows in its shards, "
                f"expected {manifest.counts.get(split, 'no such split')} (key counts)"
            )


def _check_widths(path: Path, manifest: Manifest) -> None:
    width = manifest.width
    if manifest.columns is not None and len(manifest.columns) != width:
        raise BadInput(f"{path}, key columns: found {len(manifest.columns)}, expected {width}")
    for key, values in manifest.statistics.items():
        if len(values) != width:
            raise BadInput(f"{path}, statistics, {key}: found {len(values)}, expected {width}")


def _short(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def _natural(value: object) -> bool:
    return type(value) is int and value > 0


def _names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _statistics(value: object) -> bool:
    keys = {"mean", "std", "min", "max"}
    return (
        isinstance(value, dict)
        and value.keys() == keys
        and all(isinstance(v, list) and all(map(_number, v)) for v in value.values())
    )


def _number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda v: isinstance(v, str), "text"),
    "source": (lambda v: isinstance(v, dict), "a JSON object"),
    "shape": (
        lambda v: isinstance(v, list) and bool(v) and all(map(_natural, v)),
        "a list of sizes",
    ),
    "dtype": (lambda v: v in DTYPES, f"one of {', '.join(DTYPES)}"),
    "levels": (lambda v: v is None or (_natural(v) and 2 <= v <= 256), "2 … 256 or null"),
    "columns": (lambda v: v is None or _names(v), "a list of names or null"),
    "counts": (lambda v: isinstance(v, dict) and all(map(_natural, v.values())), "rows per split"),
    "shards": (lambda v: isinstance(v, list) and bool(v), "a list of shards"),
    "statistics": (_statistics, "lists of numbers for mean, std, min and max"),
    "seed": (lambda v: type(v) is int and v >= 0, "a whole number of at least 0"),
    "assignment": (lambda v: isinstance(v, str), "text"),
    "warnings": (_names, "a list of text"),
}
