"""Paths in the store, files that readers see complete, and locks among processes."""

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from ebflow.errors import BadInput
from ebflow.files import move

ARTEFACTS = "artefacts"

ATTEMPTS, MOMENT_S = 5, 0.02  # Attempts to take a lock before an error says that others hold it


def home() -> Path:
    """Returns the absolute path of the store; creates nothing.

    Raises:
        BadInput: If ``EBFLOW_HOME`` is a URL.
    """
    place = os.environ.get("EBFLOW_HOME") or "runs/.store"
    if is_url(place):
        raise BadInput(
            option="EBFLOW_HOME",
            found=without_password(place),
            expected="a folder",
            hint="A bucket is named by EBFLOW_STORAGE, beside a folder on each node",
        )
    return Path(place).absolute()


def artefact(stage: str, key: str) -> Path:
    """Returns the folder of a stage's finished artefact."""
    return home() / ARTEFACTS / stage / key


def work(stage: str, key: str) -> Path:
    """Returns the folder of a stage that has not finished."""
    return home() / "work" / stage / key


def provenance(stage: str, key: str) -> Path:
    """Returns the file that records from what a stage computes, and which run used it last."""
    return home() / "provenance" / stage / f"{key}.json"


def is_url(place: str) -> bool:
    """True if a place is a URL, such as ``s3://data``, rather than a path."""
    head, slash, _ = place.partition("/")
    return bool(slash and head.endswith(":") and urlsplit(head).scheme)


def without_password(url: str) -> str:
    """Returns a URL that may be shown: without user, password, query and fragment.

    Not by ``urlsplit``: it raises at brackets, and ``urlunsplit`` loses slashes of a database's.
    """
    return re.sub(r"//[^/?#]*@", "//", url).partition("?")[0].partition("#")[0]


@contextmanager
def drafted(final: Path) -> Iterator[Path]:
    """Yields a temporary path for a file, and renames it to ``final`` at the end.

    Readers of ``final`` always get the old or the complete new file, even after a kill. After an
    error the temporary file is deleted.
    """
    draft = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
    try:
        yield draft
        move(draft, final)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file; readers always get the old or the complete new one."""
    with drafted(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401
    """Writes a JSON file, with null instead of NaN and infinities."""
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    write_text(path, json.dumps(finite, indent=1) + "\n")


def remove_local(path: Path) -> None:
    """Removes a file, a link, or a folder with all below it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def lock(
    name: str, *, waiting: Callable[[], None] | None = lambda: None, shared: bool = False
) -> Iterator[None]:
    """Holds a lock among all processes that share the store; a process that dies frees it.

    The modification time of its file is when it was taken.

    Arguments:
        name: A file name.
        waiting: Called once if another process holds it; None: it raises BlockingIOError.
        shared: True if other processes that share it may hold it, too.
    """
    path, kind = home() / "locks" / name, fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        try:
            _try_lock(stream, kind)
        except BlockingIOError:
            if waiting is None:
                raise
            waiting()
            fcntl.flock(stream, kind)
        os.utime(stream.fileno())
        yield


def _try_lock(stream: IO, kind: int) -> None:
    """Takes a lock, or raises BlockingIOError; `is_locked` holds it only for a moment."""
    for _ in range(ATTEMPTS):
        with suppress(BlockingIOError):
            return fcntl.flock(stream, kind | fcntl.LOCK_NB)
        time.sleep(MOMENT_S)
    return fcntl.flock(stream, kind | fcntl.LOCK_NB)


def is_locked(path: Path) -> bool:
    """True if a process holds the lock of a file."""
    with path.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def check_writable(option: str, folder: Path) -> None:
    """Raises BadInput unless the folder, or the nearest that exists above it, is writable."""
    if is_url(str(folder)):
        raise BadInput(option=option, found=without_password(str(folder)), expected="a folder")
    near = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not near.is_dir():
        raise BadInput(option=option, found=f"the file {near}", expected="a folder")
    try:
        with tempfile.TemporaryFile(dir=near):
            pass
    except OSError as error:
        found = f"{near}, where one may not write ({error.strerror})"
        raise BadInput(option=option, found=found, expected="a folder") from None
