"""The file that a training appends its metrics to: one JSON object a line.

A row has ``kind`` (``log`` or ``validate``), ``step``, ``time`` (seconds since 1970) and
``metrics``. A restarted training appends some steps again.
"""

__all__ = ["FILE", "append", "curve", "read"]

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FILE = "metrics.jsonl"

Row = dict[str, Any]


def append(path: Path, rows: Iterable[Row]) -> None:
    """Appends rows."""
    with path.open("a") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def read(path: Path, offset: int = 0) -> tuple[list[Row], int]:
    """Reads the whole lines of a file, from a byte on; no file is an empty one.

    Returns:
        The rows, and the byte behind the last of them.
    """
    if not path.exists():
        return [], offset
    with path.open("rb") as stream:
        stream.seek(offset)
        text = stream.read()
    whole = text[: text.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], offset + len(whole)


def curve(rows: Iterable[Row], kind: str) -> list[Row]:
    """Returns the rows of a kind by rising step; of a step told twice, the last one told."""
    last = {row["step"]: row for row in rows if row["kind"] == kind}
    return [last[step] for step in sorted(last)]
