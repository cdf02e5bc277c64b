"""Files that are whole or not there, contents before their name; and tensors in one file."""

__all__ = ["drafted", "load_tensors", "move", "previous", "replaced", "save_tensors", "sha256",
           "sync", "write_json", "write_text"]  # fmt: skip

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


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


@contextmanager
def drafted(final: Path) -> Iterator[Path]:
    """Gives a path for a file, which takes the final one at the end; nothing is left of a failure.

    Whoever reads the final one, after a kill too, finds what it was before or all of the file.
    """
    draft = final.with_name(f".{final.name}.{os.getpid()}")
    try:
        yield draft
        move(draft, final)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a file: whoever reads it, after a kill too, finds what it was before or all of it."""
    with drafted(path) as draft:
        draft.write_text(text)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401
    """Writes a file of JSON, null in the place of numbers that are not finite."""
    write_text(path, json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Gives an empty folder beside ``folder``, which takes its name and place at the end.

    What was there is renamed first and removed last; ``previous(folder)`` names it meanwhile. If
    writing fails, it stays, and what was written is taken away, parents made for it too.

    Raises:
        OSError: if it cannot be written, as on a full disk.
    """
    made = [parent for parent in folder.parents if not parent.exists()]
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        yield draft
        if folder.exists():
            shutil.rmtree(previous(folder), ignore_errors=True)
            folder.rename(previous(folder))
        move(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        for parent in made:
            with suppress(OSError):  # another has put something there
                parent.rmdir()
        raise
    shutil.rmtree(previous(folder), ignore_errors=True)


def previous(folder: Path) -> Path:
    """Returns where what a folder replaces is, while it does."""
    return folder.with_name(f".{folder.name}.previous")


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_tensors(tensors: Mapping[str, "Tensor"], path: Path, **metadata: str) -> None:
    """Writes tensors by their names, and text by its name."""
    from safetensors.torch import save_file

    save_file({name: t.contiguous() for name, t in tensors.items()}, path, metadata=metadata)


def load_tensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """Returns what ``save_tensors`` wrote, equal to the bit.

    Raises:
        SafetensorError: If the file is damaged.
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        # Cloned into memory aligned as torch allocates it: BLAS rounds by alignment.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}
