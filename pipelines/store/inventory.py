"""The contents of the store and of its bucket: what runs used last, and what may be deleted.

A run marks what it uses by the modification time of ``provenance/STAGE/KEY.json``.
"""

import json
import math
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

    def add(self, place: Path, file: fs.FileInfo) -> None:
        """Adds a file that lies at a place or below it."""
        time = file.mtime_ns / 1e9
        if place.parts[-3] == ARTEFACTS and place.suffix:  # its record
            self.finished = time
        self.size, self.used = self.size + file.size, max(self.used, time)
        self.places.add(place)

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
    for files, root in _roots():
        for kind in KINDS:
            for file in _listed(files, root / kind, recursive=True):
                stage, name, *_ = (*PurePosixPath(file.path).relative_to(root / kind).parts, "")
                if KEY.fullmatch(key := name.removesuffix(".json")):
                    entry = found.setdefault((stage, key), Entry(stage, key))
                    entry.add(home() / kind / stage / name, file)
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


def mark_used(stage: str, key: str) -> None:
    """Marks an artefact as used by a run now."""
    path = provenance(stage, key)
    if not path.exists():
        bucket.download(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    bucket.upload(path)


def write_provenance(stage: str, key: str, values: Mapping[str, Any]) -> None:
    """Writes what a stage computes from what, before it starts."""
    path = provenance(stage, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, values)
    bucket.upload(path)


def provenances(stage: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields keys of a stage, also of unfinished ones, with their provenance, the newest last."""
    *_, (files, root) = _roots()
    listed = _listed(files, root / "provenance" / stage)
    for file in sorted(listed, key=lambda file: file.mtime_ns):
        if file.size:  # an artefact of an earlier version has none
            with files.open_input_stream(file.path) as stream:
                yield Path(file.path).stem, json.loads(stream.read())


def _roots() -> list[tuple[fs.FileSystem, PurePosixPath]]:
    """Returns this machine's store, and the bucket if there is one, last."""
    places: list[tuple[fs.FileSystem, PurePosixPath]] = [(LOCAL, PurePosixPath(home()))]
    return [*places, (bucket.files(), PurePosixPath())] if bucket.url() else places


def _listed(files: fs.FileSystem, folder: PurePosixPath, *, recursive: bool = False) -> list:
    selector = fs.FileSelector(str(folder), allow_not_found=True, recursive=recursive)
    return [file for file in files.get_file_info(selector) if file.is_file]
