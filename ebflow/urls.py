"""URLs where paths are expected, and what of a URL may be shown."""

__all__ = ["is_url", "without_password"]

import re


def is_url(place: str) -> bool:
    """Whether a place is a URL, such as ``s3://bucket/data``, rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", place) is not None


def without_password(url: str) -> str:
    """Returns a URL that may be shown: without user, password, query and fragment."""
    return re.sub(r"//[^/?#]*@", "//", url).partition("?")[0].partition("#")[0]
