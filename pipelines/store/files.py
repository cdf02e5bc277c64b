"""Files that readers see complete, and locks among processes."""

__all__ = ["drafted", "lock", "write_bytes", "write_json", "write_text"]

import fcntl
import json
import math
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ebflow.files import move
from pipelines.store.paths import home


@contextmanager
def drafted(final: Path) -> Iterator[Path]:
    """Yields a temporary path for a file, and renames it to ``final`` at the end.

    Readers of ``final`` always get the old or the complete new file, even after a kill. After an
    error the temporary file is deleted.
    """
    draft = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
    try:
        yield draft
        move(draft, final)
    finally:
        draft.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file; readers always get the old or the complete new one."""
    with drafted(path) as draft:
        draft.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes a text file; readers always get the old or the complete new one."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401
    """Writes a JSON file, with null instead of NaN and infinities."""
    write_text(path, json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def lock(name: str, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds a lock among all processes that share the store; a process that dies frees it.

    Arguments:
        name: A file name.
        waiting: Called once if another process holds it.
    """
    path = home() / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
