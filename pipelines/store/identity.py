"""The identity of a store, by which nodes know that they share it: a random id in it."""

import os
import re
import socket
import uuid

from ebflow.errors import BadInput
from pipelines.store import bucket
from pipelines.store.files import lock
from pipelines.store.paths import home


def identity() -> str:
    """Returns the random id of this store, which its first use creates.

    Raises:
        BadInput: If the file of the id is damaged.
    """
    path = home() / "id"
    with lock("id"):
        if (content := bucket.read_shared(path)) is None:
            content = uuid.uuid4().hex.encode()
            bucket.write_shared(path, content)
    found = content.decode(errors="replace")
    if not re.fullmatch("[0-9a-f]{32}", found):
        raise BadInput(
            file=bucket.location(path),
            found="a damaged file",
            expected="the 32 hexadecimal digits of the store's id",
            hint="Remove it; the store gets another id, and earlier runs no longer count as its",
        )
    return found


def require_same_store(identity: str) -> None:
    """Checks that this process sees the store of an id and may write to it; writes nothing.

    Raises:
        BadInput: If it does not, with the name of the machine.
    """
    seen, option = _seen(identity), bucket.VARIABLE if bucket.used() else "EBFLOW_HOME"
    if not seen and not _writable():
        seen, option = f"{home()}, where one may not write,", "EBFLOW_HOME"
    if seen:
        node = socket.gethostname()
        expected = "the one that the other nodes share"
        raise BadInput(option=option, found=f"{seen} on node {node}", expected=expected)


def _seen(identity: str) -> str:
    """Returns what this process sees instead of the store of an id; empty if it sees that."""
    place = bucket.location(home())
    try:
        content = bucket.read_shared(home() / "id")
    except OSError as error:
        return f"no store at {place} ({error})"
    if content is None:
        return f"no store at {place}"
    return "" if content.decode(errors="replace") == identity else f"another store at {place}"


def _writable() -> bool:
    near = next(path for path in (home(), *home().parents) if path.exists())
    return os.access(near, os.W_OK | os.X_OK)
