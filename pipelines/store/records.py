"""Finished artefacts: whole folders, each with a record of its content beside it."""

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from ebflow.errors import BadInput
from ebflow.files import move, previous
from pipelines.store import storage
from pipelines.store.copies import download
from pipelines.store.files import write_text
from pipelines.store.locks import lock
from pipelines.store.paths import ARTEFACTS, artefact, home, location, name
from pipelines.store.shared import read, size

HARMED = "found files that are missing or changed, expected what was stored"
"""What is told of an artefact that is not what was recorded of it."""


@dataclass(frozen=True)
class Record:
    """What is known of a finished artefact.

    Attributes:
        digest: The SHA-256 of its content.
        size: Its bytes.
        run_id: Its MLflow run.
    """

    digest: str
    size: int
    run_id: str


def digest(folder: Path) -> str:
    """Returns the SHA-256 over names and content of all files below a folder, in order of names.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return total.hexdigest()


def record(stage: str, key: str) -> Record | None:
    """Returns the record of an artefact if it is whole and unchanged, else None.

    Cost: reads every file; with a storage, asks for sizes alone, as :func:`present` compares
    what it copies.
    """
    final = artefact(stage, key)
    found = _record(final)
    if found is None:
        return None
    if storage.used():
        return found if storage.size(_copy_of(final, found)) == found.size else None
    try:
        return found if digest(final) == found.digest else None
    except FileNotFoundError:
        return None


def kept(stage: str, key: str) -> bool:
    """Whether there is a record of an artefact, be that whole or harmed."""
    return read(name(_beside(artefact(stage, key)))) is not None


def _record(final: Path) -> Record | None:
    return _parsed(read(name(_beside(final))))


def _parsed(content: bytes | None) -> Record | None:
    try:
        return None if content is None else Record(**json.loads(content))
    except (TypeError, ValueError):
        return None


def _beside(final: Path) -> Path:
    """Returns the file of an artefact's record."""
    return final.with_suffix(".json")


def _copy_of(final: Path, found: Record) -> str:
    """Returns the name of an artefact's content on the storage, where each has its own."""
    return f"{name(final)}/{found.digest}"


def commit(stage: str, key: str, folder: Path, *, run_id: str) -> Record:
    """Moves a finished folder to its place and records it; what was there before goes.

    Where that has the same content it stays: others may be reading it. Both are on the disk before
    they have their names, and on the storage, if there is one, before the record is.

    Raises:
        OSError: If disk or storage do not take it; there is no new record then.
    """
    final = artefact(stage, key)
    made = _moved(folder, final, run_id)
    if storage.used():
        storage.put(final, _copy_of(final, made))
        storage.put(_beside(final), name(_beside(final)))
        storage.remove_others(name(final), made.digest)
    return made


def _moved(folder: Path, final: Path, run_id: str) -> Record:
    final.parent.mkdir(parents=True, exist_ok=True)
    made = Record(digest(folder), size(folder), run_id)
    if not final.is_dir() or digest(final) != made.digest:
        _beside(final).unlink(missing_ok=True)
        shutil.rmtree(previous(final), ignore_errors=True)
        if final.exists():
            final.rename(previous(final))
        move(folder, final)
        shutil.rmtree(previous(final), ignore_errors=True)
    write_text(_beside(final), json.dumps(asdict(made), indent=1) + "\n")
    return made


def present(path: Path) -> Path:
    """Returns the path of what another node may have made, once it is on this machine.

    Cost: without a storage none; else a request, and reads every file of the artefact; the first
    time on a node, and where its copy has been harmed, all of them are copied, and those of work
    each time.

    Arguments:
        path: Of a finished artefact, in one, or of a file of work.

    Raises:
        BadInput: If the storage has not what was stored; the same command makes it again.
    """
    if storage.used():
        kind, stage, key, *_ = path.relative_to(home()).parts
        with lock(f"copy-{stage}-{key}"):
            if kind == ARTEFACTS:
                _copy(artefact(stage, key))
            else:
                download(path)
    return path


def _copy(final: Path) -> None:
    wanted = _record(final)
    if wanted is None or not final.is_dir() or digest(final) != wanted.digest:
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".copy-", dir=final.parent) as folder:
            _fetch(final, wanted, Path(folder) / final.name)


def _fetch(final: Path, wanted: Record | None, draft: Path) -> None:
    if wanted is not None and storage.size(_copy_of(final, wanted)):
        storage.fetch(_copy_of(final, wanted), draft)
    if wanted is not None and draft.is_dir() and digest(draft) == wanted.digest:
        _moved(draft, final, wanted.run_id)
        return
    if _record(final) != wanted:
        raise OSError(f"{location(final)}: was made again while it was copied")
    storage.remove(name(_beside(final)))
    raise BadInput(f"{location(final)}: {HARMED}; the same command makes it again")
