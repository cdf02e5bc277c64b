"""Storage that all nodes see where they share no disk: a bucket, by pyarrow's file systems.

``EBFLOW_STORAGE`` (``s3://BUCKET/FOLDER``, ``gs://BUCKET/FOLDER``, ``file:///FOLDER``) holds what
nodes must find of each other's stores, under the same names. Here are its plain operations.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from ebflow.errors import BadInput
from pipelines.errors import StageFailed
from pipelines.store.urls import without_password

VARIABLE = "EBFLOW_STORAGE"
EXPECTED = "expected s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or file:///FOLDER"


def used() -> bool:
    """Whether there is a storage besides the store."""
    return bool(os.environ.get(VARIABLE))


def url() -> str:
    """Returns its URL.

    Raises:
        BadInput: If there is a user or a password in it, but Google's ``anonymous``.
    """
    found = os.environ[VARIABLE]
    if "@" in found.replace("gs://anonymous@", "", 1):
        raise BadInput(
            f"{VARIABLE}: found a user in its URL, or a password, which Ray's dashboard would "
            "show, expected them where the cloud's own tools look for them on every node, as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return found


def location(name: str) -> str:
    """Returns the URL of an object, without what a person need not see."""
    return f"{without_password(os.environ[VARIABLE]).rstrip('/')}/{name}".rstrip("/")


def check(*folders: Path) -> None:
    """Looks whether the storage answers; writes nothing.

    Arguments:
        folders: What the storage must lie apart from.

    Raises:
        BadInput: If its URL is none, has a password or lies there, or nothing answers at it.
    """
    try:
        files, root = _opened()
        bucket = "" if isinstance(files, LocalFileSystem) else root.partition("/")[0]
        found = files.get_file_info(bucket or root).type
    except OSError as error:
        line = str(error)[:300]
        raise BadInput(f"{VARIABLE}: found {location('')} ({line}), {EXPECTED}") from None
    if bucket and found is FileType.NotFound:
        raise BadInput(f"{VARIABLE}: found no bucket {bucket}, expected one that was made before")
    if found is FileType.File:
        raise BadInput(f"{VARIABLE}: found the file {location('')}, {EXPECTED}")
    for folder in () if bucket else map(Path.absolute, folders):
        if _overlap(Path(root), folder):
            raise BadInput(
                f"{VARIABLE}: found {location('')}, expected a folder apart from {folder}"
            )


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


@contextmanager
def reaching() -> Iterator[None]:
    """Turns a storage that cannot be reached into one line."""
    try:
        yield
    except OSError as error:
        raise StageFailed(f"{VARIABLE}: {location('')}: {str(error)[:300]}") from error


def put(path: Path, name: str) -> None:
    """Copies a file, or a folder with all below it, to a name; what is there is overwritten.

    Cost: the bytes of all files, once.

    Raises:
        OSError: If the storage does not take it.
    """
    files, target = _at(name)
    files.create_dir(target if path.is_dir() else target.rpartition("/")[0])
    copy_files(str(path), target, destination_filesystem=files, use_threads=False)


def fetch(name: str, path: Path) -> None:
    """Copies what has that name to a path where nothing is yet; its folder is there.

    Raises:
        FileNotFoundError: If nothing has that name.
    """
    files, source = _at(name)
    if files.get_file_info(source).type is FileType.Directory:
        path.mkdir()
    copy_files(source, str(path), source_filesystem=files)


def read(name: str) -> bytes | None:
    """Returns the content of an object; None if there is none."""
    files, source = _at(name)
    try:
        with files.open_input_stream(source) as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def write(name: str, content: bytes) -> None:
    """Makes an object, or replaces it."""
    files, target = _at(name)
    files.create_dir(target.rpartition("/")[0])
    with files.open_output_stream(target) as stream:
        stream.write(content)


def size(name: str) -> int:
    """Returns the bytes of all objects below a name, or of the one that has it; 0 if none is."""
    files, where = _at(name)
    found = files.get_file_info(where)
    if found.type is not FileType.Directory:
        return found.size or 0
    below = files.get_file_info(FileSelector(where, recursive=True))
    return sum(inner.size for inner in below if inner.is_file)


def names(name: str) -> list[str]:
    """Returns the names directly below a name, without what is above them.

    Cost: lists all that is below.
    """
    files, where = _at(name)
    found = files.get_file_info(FileSelector(where, allow_not_found=True, recursive=True))
    return sorted({PurePosixPath(inner.path).relative_to(where).parts[0] for inner in found})


def remove(name: str) -> None:
    """Removes what has that name, with all below it, if it is there."""
    files, where = _at(name)
    found = files.get_file_info(where).type
    if found is FileType.Directory:
        files.delete_dir(where)
    elif found is FileType.File:
        files.delete_file(where)


def remove_others(name: str, kept: str) -> None:
    """Removes all that is directly below a name but one."""
    for other in names(name):
        if other != kept:
            remove(f"{name}/{other}")


def _at(name: str) -> tuple[FileSystem, str]:
    files, root = _opened()
    return files, f"{root}/{name}".rstrip("/")


def _opened() -> tuple[FileSystem, str]:
    return _open(url())


@cache
def _open(found: str) -> tuple[FileSystem, str]:
    try:
        files, root = FileSystem.from_uri(found)
    except pa.ArrowInvalid:
        raise BadInput(f"{VARIABLE}: found {location('')}, {EXPECTED}") from None
    return files, root.rstrip("/")
