"""The bucket of nodes that share no disk, by pyarrow's file systems.

``EBFLOW_STORAGE`` (``s3://BUCKET/FOLDER``, ``gs://BUCKET/FOLDER``, ``file:///FOLDER``) holds
finished artefacts, checkpoints of unfinished trainings and results, at the paths that they have in
a store. Without a bucket, the functions that move files do nothing.
"""

import os
import uuid
from functools import cache
from pathlib import Path, PurePosixPath

import pyarrow as pa
from pyarrow import fs

from ebflow.errors import BadInput
from pipelines.store.files import home, remove_local, without_password

VARIABLE = "EBFLOW_STORAGE"
EXPECTED = "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or file:///FOLDER"


def url() -> str:
    """Returns its URL, empty without a bucket; raises BadInput if it has a user or a password."""
    place = os.environ.get(VARIABLE, "")
    if "@" in place.replace("gs://anonymous@", "", 1):
        raise _refused(
            "a user in its URL, or a password, which Ray's dashboard would show",
            "them where the cloud's own tools look for them on every node, as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    return place


def location(path: Path) -> str:
    """Returns the place at which all nodes see a path of the store: the path, or a URL."""
    place = without_password(os.environ.get(VARIABLE, "")).rstrip("/")
    return f"{place}/{name(path)}".rstrip("/") if place else str(path)


def name(path: Path) -> str:
    """Returns the name in the bucket of a path in the store."""
    return "/".join(path.relative_to(home()).parts)


def check(*folders: Path) -> None:
    """Raises BadInput unless the bucket answers and is apart from folders; writes nothing."""
    if not url():
        return
    shown = location(home())
    try:
        opened, root = files().base_fs, files().base_path.rstrip("/")
        local = isinstance(opened, fs.LocalFileSystem)
        kind = opened.get_file_info(root if local else root.partition("/")[0]).type
    except OSError as error:
        raise _refused(f"{shown} ({str(error)[:300]})") from None
    if kind is fs.FileType.File or (kind is fs.FileType.NotFound and not local):
        raise _refused(f"{shown}, which is no bucket or folder")
    for folder in map(Path.absolute, folders) if local else ():
        if Path(root).is_relative_to(folder) or folder.is_relative_to(root):
            raise _refused(shown, f"a folder apart from {folder}")


def _refused(found: str, expected: str = EXPECTED) -> BadInput:
    return BadInput(option=VARIABLE, found=found, expected=expected)


def upload(path: Path, to: Path | None = None) -> None:
    """Copies a file or folder to the bucket, to its own path in the store or to another one."""
    if url():
        target = name(to or path)
        files().create_dir(target if path.is_dir() else target.rpartition("/")[0])
        fs.copy_files(str(path), target, destination_filesystem=files(), use_threads=False)


def download(path: Path, source: Path | None = None) -> None:
    """Replaces a file or folder by that in the bucket; removes it if none is there.

    An entry whose upload failed is uploaded first. If the bucket fails, all stays as it was. The
    source is the path itself, or another path in the store.
    """
    if not url():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if (waiting := _waiting(path)).exists():
        upload(path / waiting.read_text())
        waiting.unlink()
    origin, draft = name(source or path), path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        found = files().get_file_info(origin).type
        if found is fs.FileType.Directory:
            draft.mkdir()
        if found is not fs.FileType.NotFound:
            fs.copy_files(origin, str(draft), source_filesystem=files())
        remove_local(path)
        if draft.exists():
            draft.rename(path)
    finally:
        remove_local(draft)


def mirror(folder: Path, fresh: Path) -> None:
    """Copies a new entry of a folder to the bucket; removes there what the folder lacks."""
    if url():
        _waiting(folder).write_text(fresh.name)
        upload(fresh)
        _waiting(folder).unlink()
        for entry in names(folder) - {path.name for path in folder.iterdir()}:
            remove(folder / entry)


def evict(folder: Path) -> None:
    """Removes a folder from this node, unless it has the only copy: an upload from it failed."""
    if url() and not any([_waiting(folder).exists(), *folder.glob(_waiting(Path("*")).name)]):
        remove_local(folder)


def _waiting(folder: Path) -> Path:
    """Returns the file with the name of an entry of a folder that is not yet in the bucket."""
    return folder.with_name(f".{folder.name}.waiting")


def forget(path: Path) -> None:
    """Removes a file or folder from this node, and from the bucket."""
    remove_local(path)
    if url():
        remove(path)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all below it, from the bucket, if it is there."""
    found = files().get_file_info(name(path)).type
    if found is fs.FileType.Directory:
        files().delete_dir(name(path))
    elif found is fs.FileType.File:
        files().delete_file(name(path))


def names(folder: Path) -> set[str]:
    """Returns the names directly below a folder of the bucket."""
    selector = fs.FileSelector(name(folder), allow_not_found=True, recursive=True)
    below = (PurePosixPath(entry.path) for entry in files().get_file_info(selector))
    return {path.relative_to(name(folder)).parts[0] for path in below}


def files() -> fs.SubTreeFileSystem:
    """Returns the bucket's folder as a file system, for the names that paths have there."""
    return _opened(url())


@cache
def _opened(place: str) -> fs.SubTreeFileSystem:
    try:
        opened, root = fs.FileSystem.from_uri(place)
    except pa.ArrowInvalid:
        raise _refused(without_password(place)) from None
    return fs.SubTreeFileSystem(root, opened)
