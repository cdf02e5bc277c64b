"""Ray, embedded in this machine and bound to loopback, or the cluster at ``RAY_ADDRESS``."""

import fcntl
import gc
import logging
import os
import queue
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pipelines import store
from pipelines.cluster import environment
from pipelines.config import ClusterConfig
from pipelines.errors import StageFailed, in_one_line
from pipelines.store import bucket
from pipelines.store.files import without_password

PREFIX = "ebflow-ray-"
FORWARDED = ("MLFLOW_", "EBFLOW_COMMIT", "EBFLOW_DATA")
SECRET = ("PASSWORD", "TOKEN", "SECRET", "KEY")
GRACE_S = 15.0
REACH_S = 10.0
WAIT_S = 0.5
OLD_S = 86_400.0  # Age from which an unused folder of an embedded Ray is removed

# Resources of a process that starts workers by Ray Train, with Ray Train's own processes. With any
# part of a CPU, workers that need all CPUs would wait forever. The memory limits how many such
# processes wait for their workers on one node.
DRIVER: Mapping[str, float] = {"CPU": 0, "memory": 2 * 2**30}

# Shows the stage and the key of a job, the share that is done, what it does now, and a note.
Show = Callable[[str, str, float, str, str], None]


class Connection:
    """A connection to Ray, with a queue of messages from jobs to this process.

    Arguments:
        show: Shows a message; a thread calls it.
        folder: Sockets and logs of an embedded Ray; a short path, as sockets need.
    """

    def __init__(self, show: Show, folder: Path | None = None) -> None:
        from ray.util.queue import Queue

        options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": this_node(soft=True)}
        self.queue: Any = Queue(actor_options=options)
        self.folder, self.stopped = folder, threading.Event()
        self.listener = threading.Thread(target=self.deliver, args=(show,), daemon=True)
        self.listener.start()

    @property
    def send(self) -> Show:
        """A function that sends a message, which another process may call."""
        return partial(_send, self.queue)

    def deliver(self, show: Show) -> None:
        """Shows the messages that come until ``stopped`` is set."""
        from ray.exceptions import RayError

        while not self.stopped.is_set():
            try:
                show(*self.queue.get(timeout=WAIT_S))
            except queue.Empty:
                continue
            except (OSError, RayError):  # a full disk; Ray restarts an actor that is lost
                self.stopped.wait(WAIT_S)


def _send(queue: Any, *message: Any) -> None:  # noqa: ANN401
    """Adds a message to a queue, and does not wait for it."""
    queue.actor.put_nowait.remote(message)


def this_node(*, soft: bool = False) -> Any:  # noqa: ANN401
    """Returns Ray's strategy to run something on this node; ``soft``: elsewhere if it is lost."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=soft)


def start(show: Show = lambda *message: None) -> Connection:
    """Connects to the cluster at ``RAY_ADDRESS``, or starts an embedded Ray.

    Raises:
        StageFailed: If the cluster cannot be reached, or Ray does not start.
    """
    if "RAY_ADDRESS" in os.environ:
        _reach(os.environ["RAY_ADDRESS"])
        return _connected(show, None, runtime_env={"env_vars": _environment()})
    return _embedded(show)


def _embedded(show: Show) -> Connection:
    """Starts Ray with memory for as many drivers as this machine has cores.

    It has a dashboard: Ray Train and Tune ask it for the state of workers and trials.
    """
    from ray._private import parameter

    # Ray gives workers folders of their own.
    os.environ["EBFLOW_HOME"] = str(store.home())
    _remove_old()
    folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/tmp")
    # The lock ends with this process, also if it is killed.
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
    cores = environment.cpus()
    options = {"address": "local", "num_cpus": cores}
    options |= {"include_dashboard": True, "dashboard_port": 0}
    memory = cores * DRIVER["memory"]
    # Ray's own port of agents is for a ``ray start`` beside this one.
    parameter.RayParams = partial(parameter.RayParams, dashboard_agent_listen_port=0)
    return _connected(show, Path(folder), **options, _memory=memory, _temp_dir=folder)


def _remove_old() -> None:
    """Removes the folders of this user's processes that were killed."""
    for folder in Path("/tmp").glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, in use, or removed by another process
            if time.time() - folder.stat().st_mtime < OLD_S:
                continue
            place = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(place)


def _connected(show: Show, folder: Path | None, **options: Any) -> Connection:  # noqa: ANN401
    import ray

    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        return Connection(show, folder)
    except BaseException as error:
        _shut_down(folder)
        if isinstance(error, Exception):  # Ray raises errors of any type, plain ones too
            what = "Ray did not start; is the machine overloaded?"
            if folder is None:
                what = "the Ray cluster at RAY_ADDRESS refused the connection:"
            raise StageFailed(f"{what} {in_one_line(error)}") from error
        raise


def uses_ray_train(config: ClusterConfig) -> bool:
    """True if Ray Train starts the workers of a training as processes of their own.

    A lone worker on this machine trains in the process of its stage. A worker with a GPU does not:
    an earlier stage in that process may have set its GPUs.
    """
    return config.limits[1] > 1 or config.gpu > 0 or not environment.embedded()


def largest_node() -> float:
    """Returns the CPUs of the largest node, at least one."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return max([1.0, *(resources.get("CPU", 0.0) for resources in alive)])


def cancel(running: Sequence[Any]) -> None:
    """Interrupts tasks, and gives them some seconds to save their work."""
    import ray

    for reference in running:
        ray.cancel(reference)
    if running:
        ray.wait(list(running), num_returns=len(running), timeout=GRACE_S)


def leave(connection: Connection) -> None:
    """Disconnects from Ray, and shuts it down if it is embedded."""
    connection.stopped.set()
    connection.listener.join()
    _shut_down(connection.folder)


def _shut_down(folder: Path | None) -> None:
    import ray

    # Exceptions hold references to Ray's objects in cycles. One that Python's collector drops
    # while Ray shuts down would end the process.
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _reach(address: str) -> None:
    """Raises StageFailed at once if nothing answers; Ray would wait for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), REACH_S).close()
        except OSError as error:
            line = f"Ray at RAY_ADDRESS = {address} cannot be reached: {error}"
            raise StageFailed(line) from None


def _environment() -> dict[str, str]:
    """Returns the variables of this process that stages and workers on a cluster get.

    Ray's dashboard shows them, so nodes must have passwords and tokens in their own environment.
    """
    forwarded = {
        name: value
        for name, value in os.environ.items()
        if (name.startswith(FORWARDED) or name in environment.SETTINGS)
        and not any(word in name for word in SECRET)
        and without_password(value) == value
    }
    return {"EBFLOW_HOME": str(store.home()), bucket.VARIABLE: bucket.url(), **forwarded}
