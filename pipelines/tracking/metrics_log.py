"""The file that a training appends its metrics to: one JSON object a line.

A row has ``kind`` (``log``, ``validate``, ``failure`` of workers, ``wait`` for room on a cluster,
or ``resume`` where a restarted training goes on), ``step``, ``share`` (of the training that is
done), ``time`` (seconds since 1970), ``metrics``, ``note`` (what to tell the user, mostly empty)
and ``text`` (how far it is, where step and NLL do not say it). Rows of kind ``search``, and of
``stage`` where a stage trains by one call, are of step 0.
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
RESUMED = "resume"
WAITING = "wait"

Row = dict[str, Any]


def row(kind: str, step: int, share: float, note: str = "", **more: Any) -> Row:  # noqa: ANN401
    """Returns a row of now; ``more`` are ``metrics`` and ``text``, if there are any."""
    told = {"time": time.time(), "metrics": {}, "note": note, "text": ""}
    return {"kind": kind, "step": step, "share": share, **told, **more}


def append(path: Path, rows: Iterable[Row]) -> None:
    """Appends rows, in one piece where the disk has room for it.

    Raises:
        OSError: If it has not; a row may be left torn.
    """
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    with path.open("ab", buffering=0) as stream:
        left = memoryview(_mended(path) + text)
        while left:
            left = left[stream.write(left) :]


def _mended(path: Path) -> bytes:
    """Returns the line end that a process killed while it wrote has left out."""
    if not path.stat().st_size:
        return b""
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return b"" if stream.read() == b"\n" else b"\n"


def _parsed(lines: Iterable[bytes]) -> list[Row]:
    """Leaves out the lines that a killed process has left torn."""
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


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
    return _parsed(whole.splitlines()), offset + len(whole)


def curve(rows: Iterable[Row], kind: str) -> list[Row]:
    """Returns the rows of a kind by rising step, less those that a restart took back."""
    kept: dict[int, Row] = {}
    for row in rows:
        if row["kind"] == RESUMED:
            kept = {step: earlier for step, earlier in kept.items() if step <= row["step"]}
        elif row["kind"] == kind:
            kept[row["step"]] = row
    return [kept[step] for step in sorted(kept)]
