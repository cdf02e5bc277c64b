"""Paths in the store, and URLs where paths are expected."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from ebflow.errors import BadInput

ARTEFACTS = "artefacts"


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


def user_cache() -> Path:
    """Returns the folder of files that the user's processes share; creates nothing."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ebflow"


def is_url(place: str) -> bool:
    """True if a place is a URL, such as ``s3://bucket/data``, rather than a path."""
    head, slash, _ = place.partition("/")
    return bool(slash and head.endswith(":") and urlsplit(head).scheme)


def without_password(url: str) -> str:
    """Returns a URL that may be shown: without user, password, query and fragment.

    Not by ``urlsplit``: it raises at brackets, and ``urlunsplit`` loses slashes of a database's.
    """
    return re.sub(r"//[^/?#]*@", "//", url).partition("?")[0].partition("#")[0]
