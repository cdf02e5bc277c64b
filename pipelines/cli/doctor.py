"""``ebflow doctor``: checks of packages, store, bucket, MLflow and Ray, one line each."""

import fcntl
import operator
import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from importlib.metadata import distributions, metadata, requires, version
from tempfile import NamedTemporaryFile
from typing import Any

import psutil
from packaging.requirements import Requirement
from rich.filesize import decimal

from ebflow.errors import BadInput, printable
from pipelines import store
from pipelines.errors import StageFailed, failure
from pipelines.reporting.terminal import terminal
from pipelines.store import bucket
from pipelines.store.files import check_writable, is_locked, nearest, without_password
from pipelines.tracking import backend

Check = tuple[str, Callable[[], str]]  # A name, and a function that returns a line or raises

LEAST_BYTES = 2**30
LOCK = "doctor"
NETWORK = ("afs", "ceph", "cifs", "fuse", "lustre", "nfs", "smb")  # Starts of file systems' names
WAIT_S = 60.0  # Seconds in which a node must answer


def doctor(address: str | None = None) -> int:
    """Checks packages, store, bucket, MLflow and Ray, and prints a line for each.

    Arguments:
        address: of a cluster's dashboard, http://HOST:PORT: the checks run there, as a job
    """
    if address is None:
        local = {"packages": _packages, "store": _store, "bucket": _bucket, "MLflow": _mlflow}
        return max(_report(local.items()), _report(_nodes()))
    from pipelines.cli.submit import run_doctor, version_of

    checks = {"packages": _packages, "cluster": partial(version_of, address)}
    return _report(checks.items()) or run_doctor(address)


def _report(checks: Iterable[Check]) -> int:
    """Prints a line for each check; returns 1 if something is wrong, else 0."""
    code = 0
    for name, check in checks:
        try:
            mark, line = "✓", check()
        except (BadInput, OSError, StageFailed) as error:
            mark, line, code = "✗", str(error), 1
        terminal().print(f"{mark} {name:<9} {printable(line)}", soft_wrap=True)
    return code


def _packages() -> str:
    """Compares versions with what the package requires; returns them."""
    needs = [Requirement(text) for text in requires("ebflow") or ()]
    needs = [
        need for need in needs if not need.marker or need.marker.evaluate({"extra": "system"})
    ]
    needs.append(Requirement(f"Python{metadata('ebflow')['Requires-Python']}"))
    installed = {found.name.lower(): found.version for found in distributions()}
    installed["python"] = platform.python_version()
    for need in needs:
        found = installed.get(need.name.lower(), "none")
        if found == "none" or not need.specifier.contains(found, prereleases=True):
            hint = f'pip install "{need}"'
            raise BadInput(file=need.name, found=found, expected=need.specifier, hint=hint)
    return ", ".join(f"{name} {installed[name]}" for name in ("python", "torch", "ray", "mlflow"))


def _store() -> str:
    """Checks that the store is writable, has space, and locks; returns its file system."""
    check_writable("EBFLOW_HOME", store.home())
    near = nearest(store.home())
    with NamedTemporaryFile(dir=near) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    free = shutil.disk_usage(near).free
    if free < LEAST_BYTES:
        expected = f"{decimal(LEAST_BYTES)}; `ebflow store prune` deletes what is old"
        raise BadInput(file=near, found=f"{decimal(free)} free", expected=expected)
    return f"{store.home()}: {_file_system()}, {decimal(free)} free"


def _file_system() -> str:
    """Returns the kind of the file system on which the store is."""
    near = nearest(store.home()).resolve()
    disks = [
        one for one in psutil.disk_partitions(all=True) if near.is_relative_to(one.mountpoint)
    ]
    return max(disks, key=lambda one: len(one.mountpoint)).fstype


def _bucket() -> str:
    """Writes a file to the bucket and deletes it, if there is a bucket."""
    if not bucket.url():
        return f"none ({bucket.VARIABLE} is not set)"
    bucket.check(store.home())
    bucket.files().create_dir("ids")
    with bucket.files().open_output_stream("ids/doctor"):
        pass
    bucket.files().delete_file("ids/doctor")
    return bucket.location(store.home())


def _mlflow() -> str:
    """Creates a run in MLflow and deletes it."""
    uri = (backend.shared_uri if "RAY_ADDRESS" in os.environ else backend.uri)()
    if uri == backend.store_uri():
        if _file_system().startswith(NETWORK):
            found = f"none, with a store on {_file_system()}, where SQLite is not safe"
            expected = "an MLflow server, as http://HOST:5000"
            raise BadInput(option=backend.VARIABLE, found=found, expected=expected)
        if not backend.database().exists():
            return "embedded; the first run creates it"
    with backend.mlflow_errors():
        client = backend.client()
        (experiment,) = client.search_experiments(max_results=1)
        run = client.create_run(experiment.experiment_id, run_name="ebflow doctor")
        client.delete_run(run.info.run_id)
    return f"{without_password(uri)}: {_server(uri)}"


def _server(uri: str) -> str:
    """Returns the version of an MLflow server, which must be of the client's major version."""
    if not uri.startswith("http"):
        return f"MLflow {version('mlflow')}"
    import requests

    login = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    answer = requests.get(f"{uri}/version", auth=login if all(login) else None, timeout=WAIT_S)
    found, here = answer.text, version("mlflow")
    if found.partition(".")[0] != here.partition(".")[0]:
        raise BadInput(file="MLflow's server", found=found, expected=f"a version as {here}")
    return f"MLflow {found}"


def _nodes() -> Iterator[Check]:
    """Yields a check that Ray starts, or the cluster is reached, and one for each of its nodes."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from pipelines.cluster import connection

    sessions = []

    def connect() -> str:
        try:
            sessions.append(connection.start())
        except (RuntimeError, ray.exceptions.RayError) as error:
            raise failure(error) from error
        return f"{os.environ.get('RAY_ADDRESS', 'embedded')}: Ray {ray.__version__}"

    yield "Ray", connect
    for session in sessions:
        with ExitStack() as stack:
            stack.callback(connection.leave, session)
            stack.enter_context(store.lock(LOCK))
            check = ray.remote(num_cpus=0)(_check_node)
            for node in filter(operator.itemgetter("Alive"), ray.nodes()):
                place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                placed = check.options(scheduling_strategy=place)
                answer = placed.remote(store.identity(), _packages())
                yield "node", partial(_answer, answer, node["Resources"])


def _answer(reference: Any, resources: Mapping[str, float]) -> str:  # noqa: ANN401
    """Waits for the check of a node; returns its name and its resources."""
    import ray

    try:
        name = ray.get(reference, timeout=WAIT_S)
    except ray.exceptions.RayError as error:
        raise failure(error) from None
    amounts = [f"{resources.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU")]
    return f"{name}: {', '.join(amounts)}, {decimal(int(resources.get('memory', 0)))}"


def _check_node(identity: str, versions: str) -> str:
    """Checks that a node has the store and the versions of the driver; returns its name."""
    store.require_same_store(identity)
    name, lock = socket.gethostname(), store.home() / "locks" / LOCK
    if not bucket.url() and not is_locked(lock):
        found = f"a lock that does not hold on node {name}"
        raise BadInput(file=lock, found=found, expected="a file system with flock")
    if (found := _packages()) != versions:
        raise BadInput(file=f"node {name}", found=found, expected=versions)
    return name
