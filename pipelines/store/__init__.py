"""The store: results of stages, and the work of unfinished ones.

``EBFLOW_HOME`` (default ``runs/.store`` under the current folder), on a disk that all nodes share
unless there is a bucket, holds

* ``artefacts/STAGE/KEY/``: the output of a stage, renamed into place once it is complete;
* ``artefacts/STAGE/KEY.json``: its record: SHA-256, sizes, modification times, MLflow run;
* ``work/STAGE/KEY/``: the files from which an unfinished stage resumes;
* ``provenance/STAGE/KEY.json``: code, configuration, inputs and version of an artefact or of
  unfinished work, and the name of its run; its time is that of the last use;
* ``locks/``: locks of keys, which the operating system frees when a process dies;
* ``ids/store``: a random id, by which nodes know that they share it;
* ``mlflow.db``, ``mlartifacts/``, ``logs/``.

With a bucket each node has a store of its own, at the same path. A stage reads and writes on its
node; other nodes copy its artefact and its checkpoints from there. Locks hold on a node: that of
the driver separates equal pipelines.
"""

import socket
import uuid

from ebflow.errors import BadInput
from pipelines.store import bucket
from pipelines.store.artefacts import (
    CORRUPT,
    Artefact,
    commit,
    digest,
    ensure_local,
    find,
    has_record,
    is_corrupt,
    recorded,
)
from pipelines.store.bucket import download, evict, forget, location, mirror, upload
from pipelines.store.files import artefact, home, lock, provenance, work, write_text
from pipelines.store.inventory import entries, mark_used, provenances

ID = "ids/store"


def identity() -> str:
    """Returns the id of this store: the bucket's URL, or the folder's random id.

    Creates the file ``ids/store`` if there is none.
    """
    with lock("store"):
        if _identity() is None:
            (home() / "ids").mkdir(exist_ok=True)
            write_text(home() / ID, uuid.uuid4().hex)
            bucket.upload(home() / ID)
        return _identity() or ""


def require_same_store(identity: str) -> None:
    """Checks that this process sees the store of an id; writes nothing.

    Raises:
        BadInput: If it does not, with the name of the machine.
        OSError: If the store cannot be read.
    """
    found = _identity()
    if found != identity:
        other, node = "no" if found is None else "another", socket.gethostname()
        raise BadInput(
            option=bucket.VARIABLE if bucket.url() else "EBFLOW_HOME",
            found=f"{other} store at {location(home())} on node {node}",
            expected="the one that the other nodes share",
        )


def _identity() -> str | None:
    if bucket.url():  # a node on which its folder is not mounted finds no file there
        return location(home()) if bucket.names((home() / ID).parent) else None
    return (home() / ID).read_text() if (home() / ID).exists() else None
