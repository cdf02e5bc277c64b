"""How processes elsewhere write into the driver's store, where nodes share no disk.

Rows and short notes of a training are read on the driver's node, by what shows and tracks them.
Checkpoints go by the storage.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipelines import store
from pipelines.cluster import environment
from pipelines.store import storage
from pipelines.tracking import metrics_log

NAME = "ebflow-store-writer"


class StoreWriter:
    """Writes what it is given, on the node where it is."""

    def append(self, path: Path, rows: list[metrics_log.Row]) -> None:
        """Appends rows to a file, in a folder that may have been made on another node alone."""
        path.parent.mkdir(parents=True, exist_ok=True)
        metrics_log.append(path, rows)

    def write(self, path: Path, text: str) -> None:
        """Makes a file, or replaces it."""
        path.write_text(text)

    def upload(self, path: Path) -> None:
        """Copies a file to the storage."""
        store.upload(path)


def start_writer(node: str) -> Any:  # noqa: ANN401
    """Starts a cluster's writer on a node; it ends with the returned handle."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node, soft=False)
    options = {"name": NAME, "num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here}
    return ray.remote(StoreWriter).options(**options).remote()


def append(path: Path, rows: Iterable[metrics_log.Row]) -> None:
    """Appends rows to a file of the driver's store, in order, before it returns."""
    _ask("append", path, list(rows))


def write(path: Path, text: str) -> None:
    """Writes a file of the driver's store."""
    _ask("write", path, text)


def upload(path: Path) -> None:
    """Copies a file of the driver's store to the storage, if there is one."""
    _ask("upload", path)


def _ask(what: str, *words: Any) -> None:  # noqa: ANN401
    if not storage.used() or environment.embedded():
        getattr(StoreWriter(), what)(*words)
        return
    import ray

    ray.get(getattr(ray.get_actor(NAME), what).remote(*words))
