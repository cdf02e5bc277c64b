"""Names for what is whole: contents reach the disk before the name that says they are there."""

__all__ = ["move", "sync"]

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Writes a file, or a folder and all below it, from the system's memory to the disk."""
    inner = path.rglob("*") if path.is_dir() else ()
    for entry in (path, *inner):
        if not entry.is_symlink():
            _sync(entry)


def move(path: Path, final: Path) -> None:
    """Renames a file, or a folder where none is yet; safe against a loss of power.

    Afterwards ``final`` is what it was before, or all of ``path``.
    """
    sync(path)
    os.replace(path, final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
