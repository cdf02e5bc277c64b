"""What unfinished work goes on from, copied to the storage and back; without one nothing is.

A copy has a name of its own, and a file that says which one holds is written when it is whole: who
is killed on the way leaves the one before. With a storage, what it has is what holds: what a node
has of its own may be of an earlier life.
"""

import shutil
import tempfile
import uuid
from pathlib import Path

from ebflow.files import move
from pipelines.store import storage
from pipelines.store.paths import name

AT = ".at"


def upload(path: Path) -> None:
    """Copies a file or folder of the store to the storage, over what was kept of it before.

    Raises:
        OSError: If the storage does not take it; what was kept before stays.
    """
    if not storage.used():
        return
    version = uuid.uuid4().hex
    storage.put(path, f"{name(path)}/{version}")
    storage.write(name(path) + AT, version.encode())
    storage.remove_others(name(path), version)


def download(path: Path) -> None:
    """Replaces a file or folder of the store by what was kept of it; nothing if nothing was."""
    if not storage.used():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    version = storage.read(name(path) + AT)
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        if version is not None:
            storage.fetch(f"{name(path)}/{version.decode()}", draft)
        _drop(path)
        if version is not None:
            move(draft, path)


def upload_entries(folder: Path, fresh: Path) -> None:
    """Makes what is kept of a folder's entries like them; ``fresh`` has just been written.

    Cost: the bytes of what is new; a request for each entry.
    """
    if not storage.used():
        return
    here = {path.name: path for path in folder.iterdir()}
    kept = _kept(folder)
    for entry, path in here.items():
        if path == fresh or entry not in kept:
            upload(path)
    for entry in kept - here.keys():
        _forget(name(folder / entry))


def download_entries(folder: Path) -> None:
    """Replaces a folder by the entries that were kept of it."""
    if not storage.used():
        return
    _drop(folder)
    for entry in _kept(folder):
        download(folder / entry)


def _kept(folder: Path) -> set[str]:
    found = storage.names(name(folder))
    return {entry.removesuffix(AT) for entry in found if entry.endswith(AT)}


def evict(folder: Path) -> None:
    """Removes from this node what the storage has; without a storage nothing."""
    if storage.used():
        _drop(folder)


def forget(path: Path) -> None:
    """Removes a file or folder from this node, and from the storage with all below it."""
    _drop(path)
    if storage.used():
        _forget(name(path))


def _forget(name: str) -> None:
    storage.remove(name + AT)
    storage.remove(name)


def _drop(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
