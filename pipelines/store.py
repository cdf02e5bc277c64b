"""Where pipelines keep what they made: one folder of artefacts a finished stage.

``EBFLOW_HOME`` (default ``runs/.store`` under the current folder) holds

* ``artefacts/STAGE/KEY/``: what a stage wrote, renamed into place once it is whole;
* ``artefacts/STAGE/KEY.json``: the SHA-256 of that folder, and its MLflow run;
* ``work/STAGE/KEY/``: what an unfinished stage goes on from;
* ``locks/``: who works on which key; freed by the operating system when a process dies;
* ``redun.db``, ``mlflow.db``, ``mlartifacts/``, ``logs/``.
"""

__all__ = [
    "Record",
    "alone",
    "artefact",
    "commit",
    "digest",
    "expect",
    "home",
    "identity",
    "lock",
    "record",
    "work",
]

import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ebflow.durable import move
from ebflow.errors import BadInput
from ebflow.urls import is_url, without_password


@dataclass(frozen=True)
class Record:
    """What is known of a finished artefact: the SHA-256 of its content and its MLflow run."""

    digest: str
    run_id: str


def home() -> Path:
    """Returns the absolute path of the store; makes nothing.

    Raises:
        BadInput: If ``EBFLOW_HOME`` is a URL.
    """
    place = os.environ.get("EBFLOW_HOME") or "runs/.store"
    if is_url(place):
        raise BadInput(
            f"EBFLOW_HOME: found {without_password(place)}, expected a folder that all nodes "
            "share: object stores have neither the locks nor the renames that a store needs"
        )
    return Path(place).absolute()


def identity() -> str:
    """Returns the random id of this store, made at its first use.

    Raises:
        BadInput: If what is there is none.
    """
    path = home() / "id"
    with lock("id"):
        if not path.exists():
            path.write_text(uuid.uuid4().hex)
        found = path.read_text(errors="replace")
    if not re.fullmatch("[0-9a-f]{32}", found):
        raise BadInput(
            f"{path}: found a damaged file, expected the 32 hexadecimal digits of the store's id; "
            "once it is removed the store gets another, by which earlier runs are not its own"
        )
    return found


def expect(identity: str) -> None:
    """Checks that this process sees the store of that id, and may write to it; writes nothing.

    Raises:
        BadInput: If it does not, naming the machine.
    """
    try:
        found = (home() / "id").read_text(errors="replace")
    except OSError as error:
        seen = f"no store ({error.strerror})"
    else:
        seen = "another store" if found != identity else ""
    if not seen and not os.access(home(), os.W_OK | os.X_OK):
        seen = "a store where one may not write"
    if seen:
        raise BadInput(
            f"EBFLOW_HOME: found {seen} at {home()} on node {socket.gethostname()}, expected the "
            "one that the other nodes share"
        )


def artefact(stage: str, key: str) -> Path:
    """Returns the folder of a stage's finished artefact."""
    return home() / "artefacts" / stage / key


def work(stage: str, key: str) -> Path:
    """Returns the folder that an unfinished stage goes on from."""
    return home() / "work" / stage / key


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
    """Returns the record of an artefact if it is whole and unchanged, else None."""
    path = artefact(stage, key).with_suffix(".json")
    try:
        found = Record(**json.loads(path.read_text()))
        intact = digest(artefact(stage, key)) == found.digest
    except (FileNotFoundError, TypeError, ValueError):
        return None
    return found if intact else None


def commit(stage: str, key: str, folder: Path, *, run_id: str) -> Record:
    """Moves a finished folder to its place and records it; what was there before goes.

    Both are on the disk before they have their names.
    """
    final = artefact(stage, key)
    final.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(final, ignore_errors=True)
    move(folder, final)
    made = Record(digest(final), run_id)
    draft = final.with_suffix(".json.new")
    draft.write_text(json.dumps(asdict(made), indent=1) + "\n")
    move(draft, final.with_suffix(".json"))
    return made


@contextmanager
def alone() -> Iterator[Callable[[], bool]]:
    """Marks the store as in use; gives a function that tells whether nobody else uses it.

    That function, once it has said yes, keeps others from marking it.
    """
    path = home() / "locks" / "use"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)

        def only() -> bool:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        yield only


@contextmanager
def lock(name: str, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the lock of that name among all processes that share the store.

    Arguments:
        name: A file name.
        waiting: Called once if another process holds it.
    """
    path = home() / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
