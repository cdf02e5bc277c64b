"""The bucket of nodes that share no disk, by pyarrow's file systems.

``EBFLOW_STORAGE`` (``s3://BUCKET/FOLDER``, ``gs://BUCKET/FOLDER``, ``file:///FOLDER``) holds
finished artefacts, checkpoints of unfinished trainings and results, under the names that they have
in a store. A stage reads and writes in the store of its own node. Without a bucket, the functions
that move files between store and bucket do nothing, and all nodes see the store itself.
"""

import os
from functools import cache
from pathlib import Path, PurePosixPath

import pyarrow as pa
from pyarrow.fs import (
    FileInfo,
    FileSelector,
    FileSystem,
    FileType,
    LocalFileSystem,
    SubTreeFileSystem,
    copy_files,
)

from ebflow.errors import BadInput
from pipelines.store.files import home, remove_local, without_password

VARIABLE = "EBFLOW_STORAGE"
EXPECTED = "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or file:///FOLDER"


def used() -> bool:
    """True if there is a bucket besides the store."""
    return bool(os.environ.get(VARIABLE))


def url() -> str:
    """Returns its URL; raises BadInput if that has a user or a password."""
    place = os.environ[VARIABLE]
    if "@" in place.replace("gs://anonymous@", "", 1):
        raise _refused(
            "a user in its URL, or a password, which Ray's dashboard would show",
            "them where the cloud's own tools look for them on every node, as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    return place


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
    """Checks that the bucket answers and is apart from folders; writes nothing.

    Raises:
        BadInput: If its URL is none, has a password, or nothing answers.
    """
    try:
        files = _opened(url())
        root, local = files.base_path.rstrip("/"), isinstance(files.base_fs, LocalFileSystem)
        kind = files.base_fs.get_file_info(root if local else root.partition("/")[0]).type
    except OSError as error:
        raise _refused(f"{place('')} ({str(error)[:300]})") from None
    if kind is FileType.File or (kind is FileType.NotFound and not local):
        raise _refused(f"{place('')}, which is no bucket or folder")
    for folder in map(Path.absolute, folders) if local else ():
        if Path(root).is_relative_to(folder) or folder.is_relative_to(root):
            raise _refused(place(""), f"a folder apart from {folder}")


def _refused(found: str, expected: str = EXPECTED) -> BadInput:
    return BadInput(option=VARIABLE, found=found, expected=expected)


def upload(path: Path) -> None:
    """Copies a file or folder of the store to the bucket; overwrites files of the same names."""
    if used():
        put(path, name(path))


def download(path: Path) -> None:
    """Replaces a file or folder of the store by that in the bucket; removes it if none is there.

    The copy of a node may be of an earlier life of the work.
    """
    if used():
        remove_local(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        fetch(name(path), path)


def mirror(folder: Path, fresh: Path) -> None:
    """Copies a new entry of a folder to the bucket; removes there what the folder lacks."""
    if used():
        upload(fresh)
        for entry in set(names(name(folder))) - {path.name for path in folder.iterdir()}:
            remove(name(folder / entry))


def evict(folder: Path) -> None:
    """Removes a folder from this node if it is in the bucket."""
    if used():
        remove_local(folder)


def forget(path: Path) -> None:
    """Removes a file or folder from this node, and from the bucket."""
    remove_local(path)
    if used():
        remove(name(path))


def read(name: str) -> bytes | None:
    """Returns the content of a small file that all nodes see; None if there is none."""
    try:
        with _files().open_input_stream(name) as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def write(name: str, content: bytes) -> None:
    """Writes a small file that all nodes see."""
    _files().create_dir(name.rpartition("/")[0])
    with _files().open_output_stream(name) as stream:
        stream.write(content)


def put(path: Path, name: str) -> None:
    """Copies a file, or a folder with all below it, to a name."""
    _files().create_dir(name if path.is_dir() else name.rpartition("/")[0])
    copy_files(str(path), name, destination_filesystem=_files(), use_threads=False)


def fetch(name: str, path: Path) -> None:
    """Copies the files of a name, if there are any, to a path where nothing is yet."""
    found = _files().get_file_info(name).type
    if found is FileType.Directory:
        path.mkdir()
    if found is not FileType.NotFound:
        copy_files(name, str(path), source_filesystem=_files())


def remove(name: str) -> None:
    """Removes a name, with all below it, if it is there."""
    found = _files().get_file_info(name).type
    if found is FileType.Directory:
        _files().delete_dir(name)
    elif found is FileType.File:
        _files().delete_file(name)


def size(name: str) -> int:
    """Returns the bytes of all files below a name; 0 if there are none."""
    return sum(inner.size for inner in _below(name) if inner.is_file)


def names(name: str) -> list[str]:
    """Returns the names directly below a name."""
    return sorted({PurePosixPath(i.path).relative_to(name).parts[0] for i in _below(name)})


def _below(name: str) -> list[FileInfo]:
    return _files().get_file_info(FileSelector(name, allow_not_found=True, recursive=True))


def _files() -> SubTreeFileSystem:
    """Returns the files that all nodes see: those of the bucket, or of the store."""
    return _opened(url()) if used() else SubTreeFileSystem(str(home()), LocalFileSystem())


@cache
def _opened(place: str) -> SubTreeFileSystem:
    try:
        files, root = FileSystem.from_uri(place)
    except pa.ArrowInvalid:
        raise _refused(without_password(place)) from None
    return SubTreeFileSystem(root, files)
