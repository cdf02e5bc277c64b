"""The manifest of a prepared data set: what its shards hold, and how each row got its split.

A prepared folder holds Parquet shards and ``manifest.json``. A shard has two columns: ``x``, a
fixed-size list of the D features of an example, and ``row``, its row number in the source; one of
data with classes has a third, ``label``. The manifest is canonical JSON, so that
``sha256sum manifest.json`` is its digest.

Which split a row belongs to is a function of the seed, the row number and the counts. A seeded
permutation gives each of the N rows a rank. Ranks from 0 are the test split, the next ones the
validation split, the next ones the selection split, if there is one, the next ones the training
split; rows beyond are left out. So the test split stays as it is when the other counts change, and
a smaller training split is part of a larger one.

A source may fix its splits: its rows are then those for training, those for validation and those
for testing, in this order, and of each the ones with the lowest ranks are used; the selection
split is taken from the training rows, behind those that are used.
"""

__all__ = ["ASSIGNMENT", "Counts", "OWN_ASSIGNMENT", "SELECTION", "SPLITS", "Manifest", "Rules",
           "Shard", "assign", "check", "split_counts"]  # fmt: skip

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

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


ASSIGNMENT = (
    "rank = numpy PCG64(seed) permutation of the row numbers; by rank: test, validation, "
    "selection, train"
)
OWN_ASSIGNMENT = (
    "the source's own rows for train, validation and test, in this order; of each the first by "
    "rank = numpy PCG64(seed) permutation of the row numbers"
)
MINIMUM = 2


@dataclass(frozen=True)
class Counts:
    """Rows of each split."""

    train: int
    validation: int
    test: int
    selection: int = 0

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits; the selection split is one only if it has rows."""
        return (*SPLITS, SELECTION) if self.selection else SPLITS

    def of(self, split: str) -> int:
        """Returns the rows of the split of that name."""
        return getattr(self, split)


def split_counts(
    total: int,
    *,
    label: str,
    validation: int | float,
    test: int | float,
    selection: int | float | None = None,
    rows: int | None = None,
    own: Counts | None = None,
) -> Counts:
    """Turns counts or fractions into rows of each split.

    Arguments:
        total: Rows of the source.
        label: Name of the source for messages.
        validation: Rows of the validation split, or their fraction of the rows used.
        test: The same for the test split.
        selection: The same for the selection split; None: there is none.
        rows: Rows to use in all; None uses every row.
        own: Rows of the splits that the source fixes: the most of each.

    Raises:
        BadInput: If a count or fraction is out of range, or leaves fewer than two training rows.
    """
    if rows is not None and not (_whole(rows) and 1 <= rows <= total):
        raise BadInput(f"rows: found {rows!r}, expected 1 … {total} (the rows of {label})")
    used = total if rows is None else rows
    held_validation = _held("validation", validation, used)
    held_test = _held("test", test, used)
    held_selection = 0 if selection is None else _held("selection", selection, used)
    if own is not None and rows is None:
        used = own.train + held_validation + held_test
    held = held_validation + held_test + held_selection
    train = used - held
    if train < MINIMUM:
        selected = f", {held_selection} for selection" if held_selection else ""
        raise BadInput(
            f"{label}: found {used} row{'s' * (used != 1)}, expected at least "
            f"{held + MINIMUM}: {held_validation} for validation{selected}, "
            f"{held_test} for test and {MINIMUM} for training"
        )
    counts = Counts(train, held_validation, held_test, held_selection)
    if own is not None:
        _check_own(label, counts, own)
    return counts


def assign(total: int, counts: Counts, seed: int, own: Counts | None = None) -> np.ndarray:
    """Returns each row's index into ``counts.splits``, or -1 if left out, as int8, (total,)."""
    rank = np.random.Generator(np.random.PCG64(seed)).permutation(total)
    if own is not None:
        return _assign_own(rank, counts, own)
    order = ("test", "validation", SELECTION, "train")
    bounds = np.cumsum([counts.of(split) for split in order])
    codes = np.array([*map((*SPLITS, SELECTION).index, order), -1], dtype=np.int8)
    return codes[np.searchsorted(bounds, rank, side="right")]


def _assign_own(rank: np.ndarray, counts: Counts, own: Counts) -> np.ndarray:
    codes, first = np.full(len(rank), -1, dtype=np.int8), 0
    for code, split in enumerate(SPLITS):
        rows = first + np.argsort(rank[first : first + own.of(split)])
        codes[rows[: counts.of(split)]] = code
        if split == "train":
            codes[rows[counts.train : counts.train + counts.selection]] = len(SPLITS)
        first += own.of(split)
    return codes


def _check_own(label: str, counts: Counts, own: Counts) -> None:
    wanted = {split: counts.of(split) for split in SPLITS}
    wanted["train"] += counts.selection
    for split, rows in wanted.items():
        if rows > own.of(split):
            raise BadInput(
                f"{label}: found {rows} rows wanted for {split}, expected at most "
                f"{own.of(split)} (the source fixes its splits)"
            )


def _held(name: str, size: int | float, used: int) -> int:
    if _whole(size) and size >= 1:
        return size
    if isinstance(size, float) and 0 < size < 1:
        return max(1, round(used * size))
    raise BadInput(
        f"{name}: found {size!r}, expected a whole number of rows of at least 1, "
        "or a fraction between 0 and 1"
    )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
