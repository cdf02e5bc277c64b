"""The store: results of stages, and the work of unfinished ones.

``EBFLOW_HOME`` (default ``runs/.store`` under the current folder), on a disk that all nodes share
unless there is a bucket, holds

* ``artefacts/STAGE/KEY/``: the output of a stage, renamed into place once it is complete;
* ``artefacts/STAGE/KEY.json``: its record: SHA-256, sizes, modification times, MLflow run;
* ``work/STAGE/KEY/``: the files from which an unfinished stage resumes;
* ``locks/``: locks of keys, which the operating system frees when a process dies;
* ``mlflow.db``, ``mlartifacts/``, ``logs/``.

With a bucket (``bucket.py``) each node has a store of its own, at the same path. A stage reads and
writes on its node; its artefact and its checkpoints go to the bucket, from which other nodes copy.
Locks hold on a node: that of the driver keeps equal pipelines apart.
"""

from pipelines.store.artefacts import (
    CORRUPT,
    Record,
    commit,
    corrupt,
    digest,
    ensure_local,
    find,
    has_record,
)
from pipelines.store.bucket import download, evict, forget, location, mirror, upload
from pipelines.store.files import lock
from pipelines.store.identity import identity, require_same_store
from pipelines.store.paths import artefact, home, work
