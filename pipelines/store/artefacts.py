"""Finished artefacts: folders that are complete, each with a record of its content beside it."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from ebflow.errors import BadInput
from ebflow.files import move, previous, sha256
from pipelines.store import bucket
from pipelines.store.files import ARTEFACTS, artefact, home, lock, write_text

CORRUPT = "found files that are missing or changed, expected what was stored"
"""The message about an artefact whose content is not that of its record."""

Stamps = dict[str, tuple[int, int]]
"""Size in bytes and modification time in nanoseconds of each file, by its path."""


class Artefact(BaseModel, frozen=True):
    """A finished artefact: the folder that a stage wrote, known by its content."""

    stage: str
    """The name of the stage."""
    key: str
    """The key of the stage's code, configuration and inputs."""
    digest: str
    """The SHA-256 of its content."""
    size: int
    """Its bytes."""
    run_id: str
    """Its MLflow run."""
    files: Stamps = Field({}, repr=False)
    """The stamps of its files on the node that wrote the record."""

    @property
    def path(self) -> Path:
        """The folder in this machine's store; from a bucket it is copied if need be.

        Raises:
            BadInput: If the artefact in the bucket is corrupt.
        """
        return ensure_local(artefact(self.stage, self.key))

    @property
    def location(self) -> str:
        """The place at which all nodes see it: a path, or a URL."""
        return bucket.location(artefact(self.stage, self.key))


def digest(folder: Path) -> str:
    """Returns the SHA-256 over names and content of all files below a folder.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    total = hashlib.sha256()
    for name in _stamps(folder):
        total.update(f"{name}\0{sha256(folder / name)}\n".encode())
    return total.hexdigest()


def find(stage: str, key: str) -> Artefact | None:
    """Returns an artefact if it is complete and unchanged, else None.

    Sizes and modification times are compared with the record; if they differ, as in a copy of the
    store, all files are read. In a bucket, sizes are compared.
    """
    final = artefact(stage, key)
    found = _record(final)
    if found is not None and bucket.used():
        return found if bucket.size(_content(final, found)) == found.size else None
    return found if _is_unchanged(final, found) else None


def _is_unchanged(final: Path, record: Artefact | None) -> bool:
    if record is None or not final.is_dir():
        return False
    return _stamps(final) == record.files or digest(final) == record.digest


def has_record(stage: str, key: str) -> bool:
    """True if an artefact was finished, even if it is corrupt now."""
    return _record(artefact(stage, key)) is not None


def corrupt() -> Iterator[str]:
    """Yields the places of corrupt artefacts, here and in the bucket; reads all files."""
    for path in sorted((home() / ARTEFACTS).glob("*/*.json")):
        final = path.with_suffix("")
        record = _record(final, local=True)
        if record is None or not final.is_dir() or digest(final) != record.digest:
            yield str(final)
    if not bucket.used():
        return
    home().mkdir(parents=True, exist_ok=True)
    for stage in bucket.names(ARTEFACTS):
        for name in bucket.names(f"{ARTEFACTS}/{stage}"):
            final = artefact(stage, name.removesuffix(".json"))
            with tempfile.TemporaryDirectory(prefix=".copy-", dir=home()) as folder:
                if name.endswith(".json") and not _fetched(final, Path(folder) / "copy"):
                    yield bucket.location(final)


def commit(stage: str, key: str, folder: Path, *, run_id: str) -> Artefact:
    """Moves a finished folder to its place in the store and records it.

    An artefact of the same content stays, as others may be reading it. Folder and record are on
    the disk before they have their names, and in the bucket, if there is one, before its record.

    Raises:
        OSError: If the disk or the bucket does not take it; then there is no new record.
    """
    final = artefact(stage, key)
    record = _moved(folder, final, run_id)
    if bucket.used():
        bucket.put(final, _content(final, record))
        bucket.upload(_beside(final))
        for other in bucket.names(bucket.name(final)):
            if other != record.digest:
                bucket.remove(f"{bucket.name(final)}/{other}")
    return record


def _moved(folder: Path, final: Path, run_id: str) -> Artefact:
    """Moves a folder to its final place on this machine; returns its new record."""
    final.parent.mkdir(parents=True, exist_ok=True)
    content = digest(folder)
    if not final.is_dir() or digest(final) != content:
        _beside(final).unlink(missing_ok=True)
        shutil.rmtree(previous(final), ignore_errors=True)
        if final.exists():
            final.rename(previous(final))
        move(folder, final)
        shutil.rmtree(previous(final), ignore_errors=True)
    files = _stamps(final)
    record = Artefact(
        stage=final.parent.name,
        key=final.name,
        digest=content,
        size=sum(size for size, _ in files.values()),
        run_id=run_id,
        files=files,
    )
    write_text(_beside(final), record.model_dump_json(indent=1) + "\n")
    return record


def ensure_local(path: Path) -> Path:
    """Returns a path below an artefact or a work folder, once this machine's store has it.

    Raises:
        BadInput: If the artefact in the bucket is corrupt; the same command recomputes it.
    """
    if bucket.used():
        kind, stage, key, *_ = path.relative_to(home()).parts
        with lock(f"copy-{stage}-{key}"):
            if kind == ARTEFACTS:
                _copy(artefact(stage, key))
            else:
                bucket.download(path)
    return path


def _copy(final: Path) -> None:
    """Copies an artefact from the bucket, unless this machine has its content."""
    record, copied = _record(final), _record(final, local=True)
    if record and copied and copied.digest == record.digest and _is_unchanged(final, copied):
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=final.parent) as folder:
        draft = Path(folder) / final.name
        if fetched := _fetched(final, draft):
            _moved(draft, final, fetched.run_id)
            return
    if _record(final) != record:
        raise OSError(f"{bucket.location(final)}: was recomputed while it was copied")
    bucket.remove(bucket.name(_beside(final)))
    hint = "The same command recomputes it"
    raise BadInput(CORRUPT, file=bucket.location(final), hint=hint)


def _fetched(final: Path, draft: Path) -> Artefact | None:
    """Copies an artefact from the bucket; returns its record, or None if that is not of it."""
    record = _record(final)
    if record is not None:
        bucket.fetch(_content(final, record), draft)
    return record if record and draft.is_dir() and digest(draft) == record.digest else None


def _record(final: Path, *, local: bool = False) -> Artefact | None:
    """Returns the record of an artefact; None if there is no valid one.

    Arguments:
        final: The artefact's folder.
        local: True for this machine's record, if the one that all nodes see is in a bucket.
    """
    beside = _beside(final)
    if bucket.used() and not local:
        content = bucket.read(bucket.name(beside))
    else:
        content = beside.read_bytes() if beside.exists() else None
    try:
        return None if content is None else Artefact.model_validate_json(content)
    except ValidationError:
        return None


def _beside(final: Path) -> Path:
    """Returns the file of an artefact's record."""
    return final.with_suffix(".json")


def _content(final: Path, record: Artefact) -> str:
    """Returns the name of an artefact's content in the bucket, where each content has its own."""
    return f"{bucket.name(final)}/{record.digest}"


def _stamps(folder: Path) -> Stamps:
    """Returns the stamps of all files below a folder, in order of their paths."""
    stats = {path: path.stat() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        path.relative_to(folder).as_posix(): (stat.st_size, stat.st_mtime_ns)
        for path, stat in stats.items()
    }
