"""The contents of the store: what runs used last, and what may be deleted.

The modification time of ``provenance/STAGE/KEY.json`` is when a run used an artefact last.
"""

import json
import math
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pyarrow import fs

from pipelines.store import bucket, files
from pipelines.store.artefacts import LOCAL

KEY = re.compile("[0-9a-f]{20}")
MARK_S = 3600.0  # Seconds for which a mark holds: marking again may cost a request


@dataclass
class Entry:
    """The files of a stage's key: its artefact or unfinished work, and its provenance."""

    stage: str
    key: str
    size: int = 0  #: Its bytes, on this machine and in the storage
    finished: float = 0.0  #: When the artefact was finished, in seconds since 1970; 0: it is not
    used: float = 0.0  #: When a run used or changed it last

    def delete(self) -> None:
        """Deletes it, its record first; raises BlockingIOError if a stage is at work on it."""
        pair = self.stage, self.key
        with files.lock("-".join(pair), waiting=None):
            bucket.forget(files.artefact(*pair).with_suffix(".json"))
            for place in (files.artefact, files.work, files.provenance):
                bucket.forget(place(*pair))


def entries() -> list[Entry]:
    """Returns all that the store has, the largest first."""
    found: dict[tuple[str, str], Entry] = {}
    for kind in (files.ARTEFACTS, "work", "provenance"):
        for _, path, file in _listed(kind):
            stage, name, *_ = (*path.parts, "")
            if KEY.fullmatch(key := name.removesuffix(".json")):
                entry = found.setdefault((stage, key), Entry(stage, key))
                entry.size += file.size
                entry.used = max(entry.used, file.mtime_ns / 1e9)
                if kind == files.ARTEFACTS and name != key:  # its record
                    entry.finished = file.mtime_ns / 1e9
    return sorted(found.values(), key=lambda entry: -entry.size)


def running_since() -> float:
    """Returns a time since which running pipelines have marked all that they use, or infinity."""
    running = filter(files.is_locked, (files.home() / "locks").glob("run-*"))
    return min((path.stat().st_mtime - MARK_S for path in running), default=math.inf)


def mark_used(stage: str, key: str, values: Mapping[str, Any] | None = None) -> None:
    """Marks an artefact as used by a run now; writes its provenance before it is computed."""
    path = files.provenance(stage, key)
    if values is None:
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime < MARK_S:
                return
        if not path.exists():
            bucket.download(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch() if values is None else files.write_json(path, values)
    bucket.upload(path)


def provenances(stages: Collection[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields keys, also of unfinished stages, with their provenance, the newest last.

    ``stages`` has the names of the stages; None: all. Files that another process removes or
    writes just now are passed over, and those that are cut off or empty.
    """
    for system, path, file in sorted(_listed("provenance"), key=lambda one: one[2].mtime_ns):
        if KEY.fullmatch(path.stem) and (stages is None or path.parts[0] in stages):
            with suppress(FileNotFoundError, ValueError):
                with system.open_input_stream(file.path) as stream:
                    found = json.loads(stream.read())
                yield path.stem, found


def _listed(folder: str) -> Iterator[tuple[fs.FileSystem, PurePosixPath, fs.FileInfo]]:
    """Yields all files below a folder, on this machine and in the storage if there is one.

    Each comes with its file system and its path in the folder.
    """
    roots = [(LOCAL, str(files.home() / folder))]
    for system, root in [*roots, (bucket.files(), folder)] if bucket.url() else roots:
        selector = fs.FileSelector(root, allow_not_found=True, recursive=True)
        for file in system.get_file_info(selector):
            if file.is_file:
                yield system, PurePosixPath(file.path).relative_to(root), file
