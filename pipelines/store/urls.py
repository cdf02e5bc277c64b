"""URLs where paths are expected, and what of a URL may be shown."""

import re
from urllib.parse import urlsplit


def is_url(place: str) -> bool:
    """Whether a place is a URL, such as ``s3://bucket/data``, rather than a path."""
    head, slash, _ = place.partition("/")
    return bool(slash and head.endswith(":") and urlsplit(head).scheme)


def without_password(url: str) -> str:
    """Returns a URL that may be shown: without user, password, query and fragment.

    Not by ``urlsplit``: it raises at brackets, and ``urlunsplit`` loses slashes of a database's.
    """
    return re.sub(r"//[^/?#]*@", "//", url).partition("?")[0].partition("#")[0]
