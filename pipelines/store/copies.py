"""What unfinished work goes on from, copied to the storage and back; without one nothing is."""

__all__ = ["forget", "keep", "mirror", "regain", "release"]

import shutil
import tempfile
from pathlib import Path

from ebflow.durable import move
from pipelines.store import storage
from pipelines.store.places import name
from pipelines.store.shared import size


def keep(path: Path) -> None:
    """Copies a file or folder of the store to the storage, if there is one."""
    if storage.used():
        storage.put(path, name(path))


def regain(path: Path) -> None:
    """Replaces a file or folder of the store by what the storage has of it, if it has any."""
    if not storage.used() or not storage.size(name(path)):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        storage.fetch(name(path), draft)
        if path.is_dir():
            shutil.rmtree(path)
        move(draft, path)


def mirror(folder: Path, fresh: Path) -> None:
    """Makes the storage's copy of a folder of folders like it: ``fresh`` has just been written.

    Cost: the bytes of what is new; a request for each folder.
    """
    if not storage.used():
        return
    here = list(folder.iterdir())
    for path in here:
        if path == fresh or storage.size(name(path)) != size(path):
            keep(path)
    for gone in set(storage.names(name(folder))) - {path.name for path in here}:
        storage.remove(f"{name(folder)}/{gone}")


def release(folder: Path) -> None:
    """Removes from this node what the storage has a copy of; without a storage nothing."""
    if storage.used():
        shutil.rmtree(folder)


def forget(path: Path) -> None:
    """Removes a folder, if it is there, from the store and from the storage."""
    if path.exists():
        shutil.rmtree(path)
    if storage.used():
        storage.remove(name(path))
