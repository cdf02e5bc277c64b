"""Storage that all nodes see where they share no disk: a bucket, by pyarrow's file systems.

``EBFLOW_STORAGE`` (``s3://BUCKET/FOLDER``, ``gs://BUCKET/FOLDER``, ``file:///FOLDER``) holds what
nodes must find of each other's stores, under the same names. Here are its plain operations.
"""

__all__ = [
    "VARIABLE",
    "check",
    "fetch",
    "names",
    "place",
    "put",
    "read",
    "remove",
    "size",
    "url",
    "used",
    "write",
]

import os
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, copy_files

from ebflow.errors import BadInput
from ebflow.urls import without_password

VARIABLE = "EBFLOW_STORAGE"
EXPECTED = "expected s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or file:///FOLDER"


def used() -> bool:
    """Whether there is a storage besides the store."""
    return bool(os.environ.get(VARIABLE))


def url() -> str:
    """Returns its URL.

    Raises:
        BadInput: If there is a password in it.
    """
    found = os.environ[VARIABLE]
    if urlsplit(found).password:
        raise BadInput(
            f"{VARIABLE}: found a password, which Ray's dashboard would show, expected it where "
            "the cloud's own tools look for it on every node, as AWS_SECRET_ACCESS_KEY"
        )
    return found


def place(name: str) -> str:
    """Returns the URL of an object, without what a person need not see."""
    return f"{without_password(os.environ[VARIABLE]).rstrip('/')}/{name}".rstrip("/")


def check() -> None:
    """Looks whether the storage answers; writes nothing.

    Raises:
        BadInput: If its URL is none, or has a password, or nothing answers there.
    """
    files, root = _opened()
    bucket = root.partition("/")[0]
    try:
        found = files.get_file_info(bucket or root).type
    except OSError as error:
        raise BadInput(f"{VARIABLE}: found {place('')} ({_line(error)}), {EXPECTED}") from None
    if bucket and found is FileType.NotFound:
        raise BadInput(f"{VARIABLE}: found no bucket {bucket}, expected one that was made before")
    if found is FileType.File:
        raise BadInput(f"{VARIABLE}: found the file {place('')}, {EXPECTED}")


def put(path: Path, name: str) -> None:
    """Copies a file, or a folder with all below it, over what has that name.

    Cost: the bytes of all files, once.

    Raises:
        OSError: If the storage does not take it.
    """
    files, target = _at(name)
    if path.is_dir():
        remove(name)
        files.create_dir(target)
    else:
        files.create_dir(target.rpartition("/")[0])
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
    files, place = _at(name)
    found = files.get_file_info(place)
    if found.type is not FileType.Directory:
        return found.size or 0
    below = files.get_file_info(FileSelector(place, recursive=True))
    return sum(inner.size for inner in below if inner.is_file)


def names(name: str) -> list[str]:
    """Returns the names directly below a name, without what is above them.

    Cost: lists all that is below.
    """
    files, place = _at(name)
    found = files.get_file_info(FileSelector(place, allow_not_found=True, recursive=True))
    return sorted({PurePosixPath(inner.path).relative_to(place).parts[0] for inner in found})


def remove(name: str) -> None:
    """Removes what has that name, with all below it, if it is there."""
    files, place = _at(name)
    found = files.get_file_info(place).type
    if found is FileType.Directory:
        files.delete_dir(place)
    elif found is FileType.File:
        files.delete_file(place)


def _at(name: str) -> tuple[FileSystem, str]:
    files, root = _opened()
    return files, f"{root}/{name}".rstrip("/")


def _opened() -> tuple[FileSystem, str]:
    return _open(url())


@cache
def _open(found: str) -> tuple[FileSystem, str]:
    try:
        files, root = FileSystem.from_uri(found)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadInput(f"{VARIABLE}: found {place('')} ({_line(error)}), {EXPECTED}") from None
    return files, root.rstrip("/")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
