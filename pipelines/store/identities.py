"""By what nodes know that they see the same store: a random id in it, or on its storage."""

import os
import re
import socket
import uuid

from ebflow.errors import BadInput
from pipelines.store import storage
from pipelines.store.locks import lock
from pipelines.store.paths import home, location
from pipelines.store.shared import read, write


def identity() -> str:
    """Returns the random id of this store, made at its first use.

    Raises:
        BadInput: If what is there is none.
    """
    with lock("id"):
        if (content := read("id")) is None:
            write("id", uuid.uuid4().hex.encode())
            content = read("id") or b""
    found = content.decode(errors="replace")
    if not re.fullmatch("[0-9a-f]{32}", found):
        raise BadInput(
            f"{location(home() / 'id')}: found a damaged file, expected the 32 hexadecimal digits "
            "of the store's id; once it is removed the store gets another, by which earlier runs "
            "are not its own"
        )
    return found


def expect(identity: str) -> None:
    """Checks that this process sees the store of that id, and may write to it; writes nothing.

    Raises:
        BadInput: If it does not, naming the machine.
    """
    seen = _seen(identity)
    variable = storage.VARIABLE if storage.used() else "EBFLOW_HOME"
    if not seen and not _writable():
        seen, variable = f"{home()}, where one may not write,", "EBFLOW_HOME"
    if seen:
        raise BadInput(
            f"{variable}: found {seen} on node {socket.gethostname()}, expected the one that the "
            "other nodes share"
        )


def _seen(identity: str) -> str:
    """Returns what this process sees instead of the store of that id; empty if it sees that."""
    try:
        found = read("id")
    except OSError as error:
        return f"no store at {location(home())} ({error})"
    if found is None:
        return f"no store at {location(home())}"
    seen = found.decode(errors="replace")
    return "" if seen == identity else f"another store at {location(home())}"


def _writable() -> bool:
    near = next(path for path in (home(), *home().parents) if path.exists())
    return os.access(near, os.W_OK | os.X_OK)
