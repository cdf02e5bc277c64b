"""Ray, embedded in this machine and bound to loopback, or the cluster at ``RAY_ADDRESS``."""

import fcntl
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pipelines import store
from pipelines.cluster import environment
from pipelines.cluster.messages import Messages
from pipelines.config import ClusterConfig
from pipelines.errors import StageFailed, failure
from pipelines.store import storage
from pipelines.store.urls import without_password

PREFIX = "ebflow-ray-"
FORWARDED = ("MLFLOW_", "EBFLOW_COMMIT", "EBFLOW_DATA")
SECRET = ("PASSWORD", "TOKEN", "SECRET", "KEY")
GRACE_S = 15.0
REACH_S = 10.0
PROBE_S = 120.0

DRIVER: Mapping[str, float] = {"CPU": 0, "memory": 2 * 2**30}
"""What a process that launches workers takes beside them, with Ray Train's own processes.

Were it any part of a CPU, workers that need all CPUs would wait for ever. The memory keeps those
that wait for their workers from filling a node.
"""


@dataclass(frozen=True)
class Connection:
    """A connection to Ray.

    Attributes:
        folder: Of an embedded Ray's sockets and logs, short as sockets' paths must be.
        node: The one whose store is this process's, where nodes have stores of their own.
        messages: Brings messages about jobs to this process; it ends with this.
        in_use: The file whose lock marks the folder as in use; the system frees it at a kill.
    """

    folder: Path | None = None
    node: str | None = None
    messages: Messages | None = None
    in_use: TextIO | None = None


def start() -> Connection:
    """Connects to Ray; an embedded one has memory for as many drivers as this machine has cores.

    It has a dashboard: Ray Train and Tune ask it for the state of workers and trials.

    Raises:
        BadInput: If a node of the cluster does not see the store.
        StageFailed: If the cluster cannot be reached.
    """
    import ray

    try:
        return _joined() if "RAY_ADDRESS" in os.environ else _embedded()
    except BaseException:
        ray.shutdown()
        raise


def _joined() -> Connection:
    import ray

    _reach(os.environ["RAY_ADDRESS"])
    runtime_env = {"env_vars": _environment()}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime_env)
    _probe(store.identity())
    if not storage.used():
        return Connection(messages=Messages())
    return Connection(node=ray.get_runtime_context().get_node_id(), messages=Messages())


def _embedded() -> Connection:
    import ray

    _sweep()
    # Ray gives workers folders of their own.
    os.environ["EBFLOW_HOME"] = str(store.home())
    folder = tempfile.mkdtemp(prefix=PREFIX, dir="/tmp")
    in_use = _in_use(Path(folder))
    cores = environment.cpus()
    ray.init(
        address="local",
        num_cpus=cores,
        include_dashboard=True,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _memory=cores * DRIVER["memory"],
        _temp_dir=folder,
    )
    return Connection(Path(folder), in_use=in_use, messages=Messages())


def launched(config: ClusterConfig) -> bool:
    """Whether the workers of a training are processes of their own, started by Ray Train.

    A lone one on this machine is not: it trains in the process of its stage, and what replaces a
    worker is the stage's next attempt. One that has a GPU is: what ran before in a stage's process
    may have settled which GPUs it sees.
    """
    return config.workers > 1 or config.gpu or not environment.embedded()


def largest_node() -> float:
    """Returns the CPUs of the node that has most of them now, at least one.

    Cost: where no node has any, as in a cluster that is scaled to zero, waits until one has come.
    """
    import ray

    if not (found := _most_cpus()):
        ray.get(ray.remote(num_cpus=1)(lambda: None).remote())
        found = _most_cpus()
    return max(1.0, found)


def _most_cpus() -> float:
    import ray

    return max(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])


def cancel(running: Sequence[Any]) -> None:
    """Interrupts the given tasks, and gives them a little time to end well."""
    import ray

    unfinished = ray.wait(list(running), num_returns=len(running), timeout=0)[1] if running else []
    for reference in unfinished:
        ray.cancel(reference)
    if unfinished:
        ray.wait(unfinished, num_returns=len(unfinished), timeout=GRACE_S)


def leave(connection: Connection) -> None:
    """Leaves Ray, and ends it where it is this process's own."""
    import ray

    ray.shutdown()
    if connection.folder is not None:
        shutil.rmtree(connection.folder, ignore_errors=True)


def _reach(address: str) -> None:
    """Raises StageFailed at once where Ray would wait for long."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), REACH_S).close()
    except OSError as error:
        raise StageFailed(f"Ray at RAY_ADDRESS = {address} cannot be reached: {error}") from None


def _probe(identity: str) -> None:
    """Looks at the store from every node, and raises what the first that misses it says.

    Raises:
        StageFailed: If a node does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(store.expect)
    nodes = {}
    for node in (node for node in ray.nodes() if node["Alive"]):
        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        looking = look.options(scheduling_strategy=place).remote(identity)
        nodes[looking] = node["NodeManagerHostname"]
    _, silent = ray.wait(list(nodes), num_returns=len(nodes), timeout=PROBE_S)
    if silent:
        raise StageFailed(
            f"node {nodes[silent[0]]}: found no answer within {PROBE_S:g} s, expected a look at "
            "the store: see `ray status`, and restart the node or remove it"
        )
    try:
        ray.get(list(nodes))
    except ray.exceptions.RayError as error:
        raise failure(error) from None


def _sweep() -> None:
    """Removes the folders that killed drivers left.

    A lock marks those in use: containers that share ``/tmp`` do not see each other's processes.
    """
    for folder in Path("/tmp").glob(f"{PREFIX}*"):
        with suppress(OSError):
            _in_use(folder, "r+").close()
            shutil.rmtree(folder, ignore_errors=True)


def _in_use(folder: Path, mode: str = "w") -> TextIO:
    """Marks a folder as in use; raises BlockingIOError if another driver uses it."""
    stream = (folder / "in-use").open(mode)
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        raise
    return stream


def _environment() -> dict[str, str]:
    """Returns what stages and workers on a cluster are told of this process's environment.

    Ray shows it in its dashboard: passwords and tokens are left to the nodes' own environment.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if (name.startswith(FORWARDED) or name in environment.SETTINGS)
        and not _secret(name, value)
    }
    shared = {storage.VARIABLE: storage.url()} if storage.used() else {}
    return {"EBFLOW_HOME": str(store.home()), **shared, **kept}


def _secret(name: str, value: str) -> bool:
    return any(word in name for word in SECRET) or without_password(value) != value
