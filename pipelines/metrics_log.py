"""The rows that a training reports, their file, and the curve that stands after restarts.

A row has ``kind``, ``step``, ``share`` (of the training that is done) and ``time`` (seconds since
1970). It also has ``metrics``, ``note`` (a line for the user, mostly empty) and ``text``, the
progress, if step and NLL do not show it. Kinds are ``log``, ``validate``, ``failure`` of workers,
``restart`` (a worker resumes), and ``resume`` (a training went back from a loss that was not
finite). All but the time are those of an :class:`~ebflow.history.Event`.
"""

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

FILE = "metrics.jsonl"
FAILURE = "failure"
RESTARTED = "restart"
WENT_BACK = "resume"

Row = dict[str, Any]


def row(kind: str, step: int, share: float, note: str = "", **more: Any) -> Row:  # noqa: ANN401
    """Returns a row of now; ``more`` are ``metrics`` and ``text``, if there are any."""
    defaults = {"time": time.time(), "metrics": {}, "note": note, "text": ""}
    return {"kind": kind, "step": step, "share": share, **defaults, **more}


def append(path: Path, rows: Iterable[Row]) -> None:
    """Appends rows to a file, one JSON object a line.

    Raises:
        OSError: If the disk is full; a row may be left torn.
    """
    with path.open("a+b") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read() != b"\n":  # a process was killed while it wrote
                stream.write(b"\n")
        stream.writelines(json.dumps(row).encode() + b"\n" for row in rows)


def read(path: Path) -> list[Row]:
    """Returns the rows of a file, less those that a killed process has left torn."""
    rows = []
    if path.exists():
        for line in path.read_bytes().splitlines():
            with suppress(ValueError):
                rows.append(json.loads(line))
    return rows


def curve(rows: Iterable[Row], kind: str) -> list[Row]:
    """Returns the standing rows of a kind."""
    return [row for row in standing(rows) if row["kind"] == kind]


def standing(rows: Iterable[Row]) -> list[Row]:
    """Returns the rows with metrics by rising step, less what a restart repeated."""
    last: dict[tuple[int, str], Row] = {}
    for row in rows:
        if row["kind"] in (RESTARTED, WENT_BACK):
            last = {place: earlier for place, earlier in last.items() if place[0] <= row["step"]}
        elif row["kind"] != FAILURE:
            last[row["step"], row["kind"]] = row
    return [last[place] for place in sorted(last)]
