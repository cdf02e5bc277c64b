"""Small files that all nodes see: on the storage if there is one, else in the store."""

from pathlib import Path

from pipelines.store import storage
from pipelines.store.files import drafted
from pipelines.store.paths import home


def read(name: str) -> bytes | None:
    """Returns the content of a file, None if there is none."""
    if storage.used():
        return storage.read(name)
    path = home() / name
    return path.read_bytes() if path.exists() else None


def write(name: str, content: bytes) -> None:
    """Makes a file, or replaces it: whole or not at all."""
    if storage.used():
        storage.write(name, content)
        return
    with drafted(home() / name) as draft:
        draft.write_bytes(content)


def size(path: Path) -> int:
    """Returns the bytes of a file of this machine, or of all below a folder."""
    inner = path.rglob("*") if path.is_dir() else (path,)
    return sum(found.stat().st_size for found in inner if found.is_file())
