"""Finished artefacts: folders that are complete, each with a record of its content beside it."""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pyarrow import fs
from pydantic import BaseModel, Field, ValidationError

from ebflow.errors import BadInput
from ebflow.files import move
from pipelines.store import bucket
from pipelines.store.files import (
    ARTEFACTS,
    LOCAL,
    Stamps,
    artefact,
    home,
    lock,
    remove_local,
    stamps,
    write_text,
)

CORRUPT = "found files that are missing or changed, expected what was stored"
"""The message about an artefact whose content is not that of its record."""


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


def digest(folder: Path | str, files: fs.FileSystem = LOCAL) -> str:
    """Returns the SHA-256 over names and content of all files below a folder."""
    total = hashlib.sha256()
    for name in stamps(folder, files):
        with files.open_input_stream(f"{folder}/{name}") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{name}\0{content}\n".encode())
    return total.hexdigest()


def find(stage: str, key: str) -> Artefact | None:
    """Returns an artefact if it is complete and unchanged, else None.

    Sizes and modification times are compared with the record; if they differ, as in a copy of the
    store, all files are read. In a bucket, sizes are compared.
    """
    final = artefact(stage, key)
    record = _record(final)
    if record is not None and bucket.used():
        return record if bucket.size(final / record.digest) == record.size else None
    return record if _is_unchanged(final, record) else None


def has_record(stage: str, key: str) -> bool:
    """True if an artefact was finished, even if it is corrupt now."""
    return _record(artefact(stage, key)) is not None


def corrupt() -> Iterator[str]:
    """Yields the places of corrupt artefacts, here and in the bucket; reads all files."""
    for path in sorted((home() / ARTEFACTS).glob("*/*.json")):
        final = path.with_suffix("")
        if not _has_content(final, _local_record(final)):
            yield str(final)
    for stage in sorted(bucket.names(home() / ARTEFACTS)) if bucket.used() else ():
        for name in sorted(bucket.names(home() / ARTEFACTS / stage)):
            final = artefact(stage, name.removesuffix(".json"))
            if name.endswith(".json") and not _has_content(final, _record(final), bucket.files()):
                yield bucket.location(final)


def _has_content(final: Path, record: Artefact | None, files: fs.FileSystem = LOCAL) -> bool:
    """True if an artefact has the content of its record, on this machine or in the bucket."""
    if record is None:
        return False
    folder = final if files is LOCAL else bucket.name(final / record.digest)
    return digest(folder, files) == record.digest


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
        bucket.upload(final, final / record.digest)
        bucket.upload(_beside(final))
        for other in bucket.names(final) - {record.digest}:
            bucket.remove(final / other)
    return record


def _moved(folder: Path, final: Path, run_id: str) -> Artefact:
    """Moves a folder to its final place on this machine; returns its new record."""
    final.parent.mkdir(parents=True, exist_ok=True)
    content = digest(folder)
    if not final.is_dir() or digest(final) != content:
        _beside(final).unlink(missing_ok=True)
        remove_local(final)
        move(folder, final)
    files = stamps(final)
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
    record, copied = _record(final), _local_record(final)
    if record and copied and copied.digest == record.digest and _is_unchanged(final, copied):
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=final.parent) as folder:
        draft = Path(folder) / final.name
        if record is not None:
            bucket.download(draft, final / record.digest)
        if _has_content(draft, record):
            _moved(draft, final, record.run_id)
            return
    if _record(final) != record:
        raise OSError(f"{bucket.location(final)}: was recomputed while it was copied")
    bucket.remove(_beside(final))
    hint = "The same command recomputes it"
    raise BadInput(CORRUPT, file=bucket.location(final), hint=hint)


def _is_unchanged(final: Path, record: Artefact | None) -> bool:
    """True if files have the stamps of their record, or at least its content."""
    if record is None or not final.is_dir():
        return False
    return stamps(final) == record.files or digest(final) == record.digest


def _record(final: Path) -> Artefact | None:
    """Returns the record of an artefact that all nodes see; None if there is no valid one."""
    return _parsed(bucket.read(_beside(final)))


def _local_record(final: Path) -> Artefact | None:
    """Returns this machine's record of an artefact; None if there is no valid one."""
    return _parsed(_beside(final).read_bytes() if _beside(final).exists() else None)


def _parsed(content: bytes | None) -> Artefact | None:
    try:
        return None if content is None else Artefact.model_validate_json(content)
    except ValidationError:
        return None


def _beside(final: Path) -> Path:
    """Returns the file of an artefact's record."""
    return final.with_suffix(".json")
