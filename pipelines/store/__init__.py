"""Where pipelines keep what they made: one folder of artefacts a finished stage.

``EBFLOW_HOME`` (default ``runs/.store`` under the current folder), on a disk that all nodes share
unless there is a storage, holds

* ``artefacts/STAGE/KEY/``: what a stage wrote, renamed into place once it is whole;
* ``artefacts/STAGE/KEY.json``: the SHA-256 of that folder, and its MLflow run;
* ``work/STAGE/KEY/``: what an unfinished stage goes on from;
* ``locks/``: who works on which key; freed by the operating system when a process dies;
* ``mlflow.db``, ``mlartifacts/``, ``logs/``.

With a storage (``storage.py``) each node has a store of its own, at the same path. Finished
artefacts and what trainings go on from lie on the storage too; a node copies what it needs. Locks
hold on a node: the driver's keeps equal pipelines apart.
"""

from pipelines.store.copies import (
    download,
    download_entries,
    evict,
    forget,
    upload,
    upload_entries,
)
from pipelines.store.identities import expect, identity
from pipelines.store.locks import lock
from pipelines.store.paths import artefact, home, location, work
from pipelines.store.records import HARMED, Record, commit, digest, kept, present, record
