"""Finished artefacts: folders that are complete, each with a record of its content beside it."""

import hashlib
import tempfile
from pathlib import Path, PurePosixPath

from pyarrow import fs
from pydantic import BaseModel, Field, ValidationError

from ebflow.errors import BadInput
from ebflow.files import move, sha256
from pipelines.store import bucket
from pipelines.store.files import ARTEFACTS, artefact, home, lock, remove_local, write_text

# The message about an artefact whose content is not that of its record.
CORRUPT = "found files that are missing or changed, expected what was stored"

LOCAL = fs.LocalFileSystem()

# Size in bytes and modification time in nanoseconds of each file, by its path.
Stamps = dict[str, tuple[int, int]]


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
        """The folder in this machine's store; raises BadInput if it has only a corrupt copy."""
        return ensure_local(artefact(self.stage, self.key))

    @property
    def location(self) -> str:
        """The place at which all nodes see it: a path, or a URL."""
        return bucket.location(artefact(self.stage, self.key))


def digest(folder: Path) -> str:
    """Returns the SHA-256 over names and content of all files below a folder."""
    total = hashlib.sha256()
    for name in _stamps(folder):
        total.update(f"{name}\0{sha256(folder / name)}\n".encode())
    return total.hexdigest()


def _stamps(folder: Path | str, files: fs.FileSystem = LOCAL) -> Stamps:
    """Returns the stamps of all files below a folder, in order of the parts of their paths."""
    selector = fs.FileSelector(str(folder), allow_not_found=True, recursive=True)
    entries = [entry for entry in files.get_file_info(selector) if entry.is_file]
    named = {PurePosixPath(e.path).relative_to(folder): (e.size, e.mtime_ns) for e in entries}
    return {path.as_posix(): named[path] for path in sorted(named)}


def find(stage: str, key: str) -> Artefact | None:
    """Returns an artefact if it is complete and unchanged, else None.

    Sizes and modification times are compared with the record; if they differ, as in a copy of the
    store, all files are read. In a bucket, sizes are compared.
    """
    final = artefact(stage, key)
    record = _record(final)
    if record is not None and bucket.url():
        stamps = _stamps(bucket.name(final / record.digest), bucket.files())
        return record if _size(stamps) == record.size else None
    return record if _is_unchanged(final, record) else None


def has_record(stage: str, key: str) -> bool:
    """True if an artefact was finished, even if it is corrupt now."""
    return _record(artefact(stage, key)) is not None


def recorded() -> list[Path]:
    """Returns the folders of all artefacts in this machine's store."""
    return [path.with_suffix("") for path in sorted((home() / ARTEFACTS).glob("*/*.json"))]


def is_corrupt(final: Path) -> bool:
    """True if an artefact in this machine's store differs from its record; reads all files."""
    return not _is_unchanged(final, _record(final, local=True), stamped=False)


def commit(stage: str, key: str, folder: Path, *, run_id: str, shared: bool = True) -> Artefact:
    """Moves a finished folder to its place in the store and records it.

    An artefact of the same content stays, as others may be reading it. Folder and record are on
    the disk before they have their names, and in the bucket before its record. ``shared`` is False
    for a copy from there.

    Raises:
        OSError: If it cannot be written; then there is no new record.
    """
    final, content = artefact(stage, key), digest(folder)
    final.parent.mkdir(parents=True, exist_ok=True)
    if not final.is_dir() or digest(final) != content:
        _beside(final).unlink(missing_ok=True)
        remove_local(final)
        move(folder, final)
    files = _stamps(final)
    numbers = {"size": _size(files), "files": files}
    record = Artefact(stage=stage, key=key, digest=content, run_id=run_id, **numbers)
    write_text(_beside(final), record.model_dump_json(indent=1) + "\n")
    if shared and bucket.url():
        bucket.upload(final, final / content)
        bucket.upload(_beside(final))
        for other in bucket.names(final) - {content}:
            bucket.remove(final / other)
    return record


def ensure_local(path: Path) -> Path:
    """Returns a path below an artefact or a work folder, once this machine's store has it.

    Raises:
        BadInput: If it would copy a corrupt artefact; the same command recomputes it.
    """
    if bucket.url():
        kind, stage, key, *_ = path.relative_to(home()).parts
        with lock(f"copy-{stage}-{key}"):
            if kind == ARTEFACTS:
                _copy(artefact(stage, key))
            else:
                bucket.download(path)
    return path


def _copy(final: Path) -> None:
    """Copies an artefact to this machine, unless it has its content."""
    record, copied = _record(final), _record(final, local=True)
    if record and copied and copied.digest == record.digest and _is_unchanged(final, copied):
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=final.parent) as folder:
        draft = Path(folder) / final.name
        if record is not None:
            bucket.download(draft, final / record.digest)
        if _is_unchanged(draft, record, stamped=False):
            commit(record.stage, record.key, draft, run_id=record.run_id, shared=False)
            return
    if _record(final) != record:
        raise OSError(f"{bucket.location(final)}: was recomputed while it was copied")
    bucket.remove(_beside(final))
    hint = "The same command recomputes it"
    raise BadInput(CORRUPT, file=bucket.location(final), hint=hint)


def _is_unchanged(folder: Path, record: Artefact | None, *, stamped: bool = True) -> bool:
    """True if a folder has the stamps of its record, which ``stamped`` trusts, or its content."""
    if record is None or not folder.is_dir():
        return False
    return (stamped and _stamps(folder) == record.files) or digest(folder) == record.digest


def _record(final: Path, *, local: bool = False) -> Artefact | None:
    """Returns the record of an artefact; None if there is no valid one.

    ``local`` is True for this machine's record, where all nodes see another.
    """
    beside = _beside(final)
    files, place = LOCAL, str(beside)
    if bucket.url() and not local:
        files, place = bucket.files(), bucket.name(beside)
    try:
        with files.open_input_stream(place) as stream:
            return Artefact.model_validate_json(stream.read())
    except (FileNotFoundError, ValidationError):
        return None


def _size(stamps: Stamps) -> int:
    return sum(size for size, _ in stamps.values())


def _beside(final: Path) -> Path:
    """Returns the file of an artefact's record."""
    return final.with_suffix(".json")
