"""Reads ``manifest.json`` and says which key is wrong."""

__all__ = ["VERSION", "Rules", "check", "read_manifest"]

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ebflow.errors import BadInput

VERSION = 2
DTYPES = ("uint8", "float32", "float64")


def read_manifest(path: Path) -> dict[str, Any]:
    """Returns the JSON object of a manifest whose keys, types and counts have been checked.

    Raises:
        BadInput: If the file is missing, damaged, of another version, or contradicts itself.
    """
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
