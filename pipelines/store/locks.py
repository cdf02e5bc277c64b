"""Who works on what: locks of files, freed by the operating system when a process dies."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from pipelines.store.paths import home


@contextmanager
def lock(name: str, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the lock of that name among all processes that share the store.

    Arguments:
        name: A file name.
        waiting: Called once if another process holds it.
    """
    with _opened(name) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _opened(name: str) -> TextIO:
    path = home() / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w")
