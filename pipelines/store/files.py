"""Files that readers see complete: text and JSON."""

__all__ = ["drafted", "write_json", "write_text"]

import json
import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ebflow.files import move


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


def write_text(path: Path, text: str) -> None:
    """Writes a text file; readers always get the old or the complete new one."""
    with drafted(path) as draft:
        draft.write_text(text)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401
    """Writes a JSON file, with null instead of NaN and infinities."""
    write_text(path, json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
