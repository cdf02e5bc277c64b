"""Where things are in the store, and what they are called on the storage."""

import os
from pathlib import Path

from ebflow.errors import BadInput
from pipelines.store import storage
from pipelines.store.urls import is_url, without_password

ARTEFACTS = "artefacts"


def home() -> Path:
    """Returns the absolute path of the store; makes nothing.

    Raises:
        BadInput: If ``EBFLOW_HOME`` is a URL.
    """
    place = os.environ.get("EBFLOW_HOME") or "runs/.store"
    if is_url(place):
        raise BadInput(
            f"EBFLOW_HOME: found {without_password(place)}, expected a folder; a bucket is named "
            f"by {storage.VARIABLE}, beside a folder on each node"
        )
    return Path(place).absolute()


def artefact(stage: str, key: str) -> Path:
    """Returns the folder of a stage's finished artefact."""
    return home() / ARTEFACTS / stage / key


def work(stage: str, key: str) -> Path:
    """Returns the folder that an unfinished stage goes on from."""
    return home() / "work" / stage / key


def location(path: Path) -> str:
    """Returns where all nodes see what has a path in the store: a path, or a URL."""
    return storage.location(name(path)) if storage.used() else str(path)


def name(path: Path) -> str:
    """Returns the name on the storage of what has a path in the store."""
    return "/".join(path.relative_to(home()).parts)


def user_cache() -> Path:
    """Returns the folder of what the user's processes need not make twice; makes nothing."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ebflow"
