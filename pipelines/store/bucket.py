"""The bucket of nodes that share no disk, by pyarrow's file systems.

``EBFLOW_STORAGE`` (``s3://BUCKET/FOLDER``, ``gs://BUCKET/FOLDER``, ``file:///FOLDER``) holds
finished artefacts, checkpoints of unfinished trainings and results, under the names that they have
in a store. A stage reads and writes in the store of its own node. Without a bucket, the functions
that move files between store and bucket do nothing.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from ebflow.errors import BadInput
from pipelines.errors import StageFailed
from pipelines.store.files import write_bytes
from pipelines.store.paths import home, without_password

VARIABLE = "EBFLOW_STORAGE"
EXPECTED = "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or file:///FOLDER"


def used() -> bool:
    """True if there is a bucket besides the store."""
    return bool(os.environ.get(VARIABLE))


def url() -> str:
    """Returns its URL.

    Raises:
        BadInput: If the URL has a user or a password, except Google's ``anonymous``.
    """
    found = os.environ[VARIABLE]
    if "@" in found.replace("gs://anonymous@", "", 1):
        raise BadInput(
            option=VARIABLE,
            found="a user in its URL, or a password, which Ray's dashboard would show",
            expected="them where the cloud's own tools look for them on every node, as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    return found


def name(path: Path) -> str:
    """Returns the name in the bucket of a path in the store."""
    return "/".join(path.relative_to(home()).parts)


def location(path: Path) -> str:
    """Returns the place at which all nodes see a path of the store: the path, or a URL."""
    return place(name(path)) if used() else str(path)


def place(name: str) -> str:
    """Returns the URL of a name, without secrets."""
    return f"{without_password(os.environ[VARIABLE]).rstrip('/')}/{name}".rstrip("/")


def check(*folders: Path) -> None:
    """Checks that the bucket answers and lies apart from folders; writes nothing.

    Raises:
        BadInput: If its URL is none, has a password, or nothing answers.
    """
    try:
        files, root = _open(url())
        named = "" if isinstance(files, LocalFileSystem) else root.partition("/")[0]
        found = files.get_file_info(named or root).type
    except OSError as error:
        raise _refused(f"{place('')} ({str(error)[:300]})") from None
    if named and found is FileType.NotFound:
        raise _refused(f"no bucket {named}", "one that was made before")
    if found is FileType.File:
        raise _refused(f"the file {place('')}")
    for folder in () if named else map(Path.absolute, folders):
        if Path(root).is_relative_to(folder) or folder.is_relative_to(root):
            raise _refused(place(""), f"a folder apart from {folder}")


def _refused(found: str, expected: str = EXPECTED) -> BadInput:
    return BadInput(option=VARIABLE, found=found, expected=expected)


@contextmanager
def bucket_errors() -> Iterator[None]:
    """Raises StageFailed with one line if the bucket cannot be reached."""
    try:
        yield
    except OSError as error:
        raise StageFailed(f"{VARIABLE}: {place('')}: {str(error)[:300]}") from error


def upload(path: Path) -> None:
    """Copies a file or folder of the store to the bucket; overwrites files of the same names."""
    if used():
        put(path, name(path))


def download(path: Path) -> None:
    """Replaces a file or folder of the store by that in the bucket; removes it if none is there.

    The copy of a node may be of an earlier life of the work.
    """
    if used():
        _remove_local(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        fetch(name(path), path)


def mirror(folder: Path, fresh: Path) -> None:
    """Makes a folder in the bucket like that of the store, where ``fresh`` is a new entry."""
    if used():
        there, here = set(_names(name(folder))), {path.name for path in folder.iterdir()}
        for entry in {fresh.name} | here - there:
            upload(folder / entry)
        for entry in there - here:
            remove(name(folder / entry))


def evict(folder: Path) -> None:
    """Removes a folder from this node if it is in the bucket."""
    if used():
        _remove_local(folder)


def forget(path: Path) -> None:
    """Removes a file or folder from this node, and from the bucket."""
    _remove_local(path)
    if used():
        remove(name(path))


def read_shared(path: Path) -> bytes | None:
    """Returns the content of a small file that all nodes share; None if there is none."""
    if not used():
        return path.read_bytes() if path.exists() else None
    files, source = _at(name(path))
    try:
        with files.open_input_stream(source) as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def write_shared(path: Path, content: bytes) -> None:
    """Writes a small file that all nodes share, completely or not at all."""
    if not used():
        write_bytes(path, content)
        return
    files, target = _at(name(path))
    files.create_dir(target.rpartition("/")[0])
    with files.open_output_stream(target) as stream:
        stream.write(content)


def put(path: Path, name: str) -> None:
    """Copies a file, or a folder with all below it, to a name."""
    files, target = _at(name)
    files.create_dir(target if path.is_dir() else target.rpartition("/")[0])
    copy_files(str(path), target, destination_filesystem=files, use_threads=False)


def fetch(name: str, path: Path) -> None:
    """Copies the files of a name, if there are any, to a path where nothing is yet."""
    files, source = _at(name)
    found = files.get_file_info(source).type
    if found is FileType.Directory:
        path.mkdir()
    if found is not FileType.NotFound:
        copy_files(source, str(path), source_filesystem=files)


def size(name: str) -> int:
    """Returns the bytes of all objects below a name; 0 if there are none."""
    files, where = _at(name)
    below = files.get_file_info(FileSelector(where, allow_not_found=True, recursive=True))
    return sum(inner.size for inner in below if inner.is_file)


def remove(name: str) -> None:
    """Removes a name, with all below it, if it is there."""
    files, where = _at(name)
    found = files.get_file_info(where).type
    if found is FileType.Directory:
        files.delete_dir(where)
    elif found is FileType.File:
        files.delete_file(where)


def remove_others(name: str, kept: str) -> None:
    """Removes all that is directly below a name but one."""
    for other in _names(name):
        if other != kept:
            remove(f"{name}/{other}")


def _names(name: str) -> list[str]:
    """Returns the names directly below a name."""
    files, where = _at(name)
    found = files.get_file_info(FileSelector(where, allow_not_found=True, recursive=True))
    return sorted({PurePosixPath(inner.path).relative_to(where).parts[0] for inner in found})


def _remove_local(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _at(name: str) -> tuple[FileSystem, str]:
    files, root = _open(url())
    return files, f"{root}/{name}".rstrip("/")


@cache
def _open(found: str) -> tuple[FileSystem, str]:
    try:
        files, root = FileSystem.from_uri(found)
    except pa.ArrowInvalid:
        raise _refused(place("")) from None
    return files, root.rstrip("/")
