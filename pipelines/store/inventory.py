"""The contents of the store and of its bucket: what runs used last, and what may be deleted.

The modification time of ``provenance/STAGE/KEY.json`` is when a run used an artefact last.
"""

import json
import math
import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import fs

from pipelines.store import bucket
from pipelines.store.artefacts import LOCAL
from pipelines.store.files import ARTEFACTS, home, is_locked, lock, provenance, refuse, write_json

KINDS = (ARTEFACTS, "work", "provenance")
KEY = re.compile("[0-9a-f]{20}")
CLOCKS_S = 60.0  # Seconds by which the clocks of machines and of a bucket may differ


@dataclass
class Entry:
    """The files of a stage's key: its artefact or unfinished work, and its provenance.

    Arguments:
        size: Its bytes, in the bucket and on this machine.
        finished: When the artefact was finished, in seconds since 1970; 0: it is not.
        used: When a run used or changed it last.
        places: The paths to delete.
        about: Its provenance; empty for those of earlier versions.
    """

    stage: str
    key: str
    size: int = 0
    finished: float = 0.0
    used: float = 0.0
    places: set[Path] = field(default_factory=set)
    about: Mapping[str, Any] = field(default_factory=dict)

    def delete(self) -> bool:
        """Deletes it, its record first; returns False if a stage is at work on it."""
        try:
            with lock(f"{self.stage}-{self.key}", waiting=refuse):
                for place in sorted(self.places, key=lambda place: not place.suffix):
                    bucket.forget(place)
        except BlockingIOError:
            return False
        return True


def entries() -> list[Entry]:
    """Returns all that the store has, the largest first."""
    found: dict[tuple[str, str], Entry] = {}
    for _, path, file in _files(*KINDS, recursive=True):
        kind, stage, name, *_ = (*path.parts, "")
        if KEY.fullmatch(key := name.removesuffix(".json")):
            entry = found.setdefault((stage, key), Entry(stage, key))
            entry.size += file.size
            entry.used = max(entry.used, file.mtime_ns / 1e9)
            entry.places.add(home() / kind / stage / name)
            if kind == ARTEFACTS and name != key:  # its record
                entry.finished = file.mtime_ns / 1e9
    for stage in {stage for stage, _ in found}:
        for key, about in provenances(stage):
            found[stage, key].about = about
    return sorted(found.values(), key=lambda entry: -entry.size)


def logs() -> list[Path]:
    """Returns the logs of runs."""
    return sorted((home() / "logs").glob("*.log"))


def running_since() -> float:
    """Returns a time before the pipelines that run now started; infinity if none runs."""
    running = filter(is_locked, (home() / "locks").glob("run-*"))
    return min((path.stat().st_mtime - CLOCKS_S for path in running), default=math.inf)


def mark_used(stage: str, key: str, values: Mapping[str, Any] | None = None) -> None:
    """Marks an artefact as used by a run now; writes its provenance before it is computed."""
    path = provenance(stage, key)
    if values is None and not path.exists():
        bucket.download(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch() if values is None else write_json(path, values)
    bucket.upload(path)


def provenances(stage: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields keys of a stage, also of unfinished ones, with their provenance, the newest last."""
    found = sorted(_files(f"provenance/{stage}"), key=lambda one: one[2].mtime_ns)
    for files, path, file in found:
        if file.size:  # those of earlier versions are empty
            with files.open_input_stream(file.path) as stream:
                yield path.stem, json.loads(stream.read())


def _files(
    *folders: str, recursive: bool = False
) -> Iterator[tuple[fs.FileSystem, PurePosixPath, fs.FileInfo]]:
    """Yields the files below folders of this machine's store, and of the bucket if there is one.

    Each comes with its file system and its path in the store.
    """
    roots: list[tuple[fs.FileSystem, PurePosixPath]] = [(LOCAL, PurePosixPath(home()))]
    if bucket.url():
        roots.append((bucket.files(), PurePosixPath()))
    for files, root in roots:
        for folder in folders:
            place = str(root / folder)
            selector = fs.FileSelector(place, allow_not_found=True, recursive=recursive)
            for file in filter(operator.attrgetter("is_file"), files.get_file_info(selector)):
                yield files, PurePosixPath(file.path).relative_to(root), file
