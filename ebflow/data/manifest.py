"""The manifest of a prepared data set: what its shards hold, and how each row got its split.

A prepared folder holds Parquet shards and ``manifest.json``. A shard has two columns: ``x``, a
fixed-size list of the D features of an example, and ``row``, its row number in the source; one of
data with classes has a third, ``label``. The manifest is canonical JSON, so that
``sha256sum manifest.json`` is its digest.
"""

__all__ = ["SELECTION", "SPLITS", "Manifest", "Rules", "Shard", "check"]

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import BadInput

VERSION = 2
DTYPES = ("uint8", "float32", "float64")

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
        found = _read(Path(folder) / "manifest.json")
        columns = found["columns"]
        changed = {
            "shape": tuple(found["shape"]),
            "columns": None if columns is None else tuple(columns),
            "shards": tuple(Shard(**entry) for entry in found["shards"]),
            "warnings": tuple(found["warnings"]),
        }
        return cls(**found | changed)


Rules = dict[str, tuple[Callable[[Any], bool], str]]
"""A test of the value of every key, and what it expects."""


def check(where: str, found: dict[str, Any], rules: Rules) -> None:
    """Raises BadInput, with the first key that is missing, unknown or against its rule."""
    if missing := sorted(rules.keys() - found.keys()):
        raise BadInput(f"{where}: missing key {missing[0]}, expected {rules[missing[0]][1]}")
    if unknown := sorted(found.keys() - rules.keys()):
        raise BadInput(f"{where}: found key {unknown[0]}, expected no such key")
    for key, (test, expected) in rules.items():
        if not test(found[key]):
            raise BadInput(f"{where}, key {key}: found {_short(found[key])}, expected {expected}")


def _read(path: Path) -> dict[str, Any]:
    """Returns the JSON object of a manifest whose keys, types and counts have been checked."""
    found = _parse(path)
    if found.get("version", VERSION) != VERSION:
        raise BadInput(
            f"{path}, key version: found {_short(found['version'])}, expected {VERSION}"
        )
    check(f"{path}", found, _RULES)
    for index, shard in enumerate(found["shards"]):
        check(f"{path}, shards[{index}]", shard, _SHARD_RULES)
    _check_counts(path, found)
    _check_widths(path, found)
    return found


def _parse(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{path}: no such file, expected the manifest of a data set") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except (RecursionError, ValueError) as error:
        raise BadInput(
            f"{path}: not JSON ({error}), expected the manifest of a data set"
        ) from None
    if not isinstance(found, dict):
        raise BadInput(f"{path}: found {_short(found)}, expected a JSON object")
    return found


def _check_counts(path: Path, found: dict[str, Any]) -> None:
    counts = found["counts"]
    rows = dict.fromkeys(counts, 0)
    for shard in found["shards"]:
        rows[shard["split"]] = rows.get(shard["split"], 0) + shard["rows"]
    for split, number in rows.items():
        if counts.get(split) != number:
            raise BadInput(
                f"{path}, split {split}: found {number} rows in its shards, "
                f"expected {counts.get(split, 'no such split')} (key counts)"
            )


def _check_widths(path: Path, found: dict[str, Any]) -> None:
    width = math.prod(found["shape"])
    lists = found["statistics"] | {"columns": found["columns"] or [""] * width}
    for key, values in lists.items():
        if len(values) != width:
            raise BadInput(
                f"{path}, {key}: found {len(values)} entries, expected {width} (key shape)"
            )


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _file_name(value: object) -> bool:
    return isinstance(value, str) and value == Path(value).name and value.endswith(".parquet")


def _natural(value: object) -> bool:
    return type(value) is int and value > 0


def _text(value: object) -> bool:
    return isinstance(value, str)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _numbers(value: object) -> bool:
    return isinstance(value, list) and all(
        type(v) in (int, float) and math.isfinite(v) for v in value
    )


def _statistics(value: object) -> bool:
    keys = {"mean", "std", "min", "max"}
    return isinstance(value, dict) and value.keys() == keys and all(map(_numbers, value.values()))


_RULES: Rules = {
    "name": (_text, "text"),
    "source": (lambda v: isinstance(v, dict), "a JSON object"),
    "shape": (lambda v: isinstance(v, list) and v and all(map(_natural, v)), "a list of sizes"),
    "dtype": (lambda v: v in DTYPES, f"one of {', '.join(DTYPES)}"),
    "levels": (lambda v: v is None or (_natural(v) and 2 <= v <= 256), "2 … 256, or null"),
    "columns": (lambda v: v is None or _texts(v), "a list of names, or null"),
    "counts": (lambda v: isinstance(v, dict) and all(map(_natural, v.values())), "rows by split"),
    "shards": (
        lambda v: isinstance(v, list) and v and all(isinstance(shard, dict) for shard in v),
        "a list of shards",
    ),
    "statistics": (_statistics, "lists of finite numbers for mean, std, min and max"),
    "seed": (lambda v: type(v) is int and v >= 0, "a whole number of at least 0"),
    "assignment": (_text, "text"),
    "warnings": (_texts, "a list of text"),
    "classes": (lambda v: v is None or (_natural(v) and v >= 2), "2 or more, or null"),
    "version": (lambda v: v == VERSION, str(VERSION)),
}

_SHARD_RULES: Rules = {
    "split": (_text, "text"),
    "file": (_file_name, "the name of a .parquet file in this folder"),
    "rows": (_natural, "a number of rows"),
    "bytes": (_natural, "a number of bytes"),
    "sha256": (_text, "text"),
}
