"""Files that are complete or absent, and tensors in one file."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def move(path: Path, final: Path) -> None:
    """Renames a file, or a folder whose new name is free, so that a power failure is harmless.

    Afterwards ``final`` is either unchanged or has the complete contents of ``path``.
    """
    for entry in (path, *path.rglob("*")):
        if not entry.is_symlink():
            _sync(entry)
    os.replace(path, final)
    _sync(final.parent)


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Yields an empty temporary folder, and renames it to ``folder`` at the end.

    The old folder is renamed to ``previous(folder)`` first and deleted last. After an error the
    old folder stays, and the temporary one is deleted with all parents created for it.

    Raises:
        OSError: if the folder cannot be written, as on a full disk.
    """
    created = [parent for parent in folder.parents if not parent.exists()]
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
        for parent in created:
            with suppress(OSError):  # somebody else has put something there
                parent.rmdir()
        raise
    shutil.rmtree(previous(folder), ignore_errors=True)


def previous(folder: Path) -> Path:
    """Returns the name of the old folder while ``replaced`` renames the new one."""
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
    """Writes tensors and texts by their names.

    Raises:
        OSError: if the file cannot be written, with its name, which a full disk's error lacks.
    """
    from safetensors.torch import save

    # Copied, because a layer that is used twice has tensors that share memory. Not by
    # safetensors' save_file, which ignores the umask: nobody else could read the file.
    copies = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    try:
        path.write_bytes(save(copies, metadata))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def load_tensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """Returns the tensors and texts that ``save_tensors`` wrote, equal to the bit.

    Raises:
        OSError: if the file is missing or may not be read.
        SafetensorError: if the file is corrupt.
    """
    from safetensors import safe_open

    path.open("rb").close()  # safetensors would call any file that it cannot open missing
    with safe_open(path, "pt") as file:
        # Cloned into memory aligned as torch allocates it: BLAS rounds by alignment.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}
