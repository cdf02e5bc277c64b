"""``ebflow doctor``: checks of packages, store, bucket, MLflow and Ray, one line each."""

import fcntl
import os
import platform
import shutil
import socket
from importlib.metadata import distributions, metadata, requires
from tempfile import NamedTemporaryFile

import psutil
from packaging.requirements import Requirement
from rich.filesize import decimal

from ebflow.errors import BadInput, printable
from pipelines import store
from pipelines.cluster import connection
from pipelines.errors import StageFailed, failure
from pipelines.reporting.terminal import terminal
from pipelines.store import bucket
from pipelines.store.files import check_writable, is_locked, nearest, without_password
from pipelines.tracking import backend

LEAST_BYTES = 2**30
LOCK = "doctor"
NETWORK = ("afs", "ceph", "cifs", "fuse", "lustre", "nfs", "smb")  # Starts of file systems' names
WAIT_S = 60.0  # Seconds in which all nodes must answer


def doctor(address: str | None = None) -> int:
    """Checks packages, store, bucket, MLflow and Ray, and prints a line for each.

    Arguments:
        address: of a cluster's dashboard, http://HOST:PORT: the checks run there, as a job
    """
    if address is not None:
        from pipelines.cli.submit import run_doctor

        return run_doctor(address)
    code = 0
    checks = {"store": _store, "bucket": _bucket, "MLflow": _mlflow, "Ray": _ray}
    for name, check in {"packages": _packages, **checks}.items():
        try:
            mark, line = "✓", check()
        except (BadInput, OSError, StageFailed) as error:
            mark, line, code = "✗", str(error), 1
        terminal().print(f"{mark} {name:<9} {printable(line)}", soft_wrap=True)
    return code


def _packages() -> str:
    """Compares versions with those that ebflow requires; returns them."""
    needs = [Requirement(text) for text in requires("ebflow") or ()]
    needs.append(Requirement(f"python{metadata('ebflow')['Requires-Python']}"))
    installed = {found.name.lower(): found.version for found in distributions()}
    installed["python"] = platform.python_version()
    for need in needs:
        if need.marker is None or need.marker.evaluate({"extra": "system"}):
            found = installed.get(need.name.lower(), "")
            if not found or not need.specifier.contains(found, prereleases=True):
                expected, hint = str(need.specifier), f'pip install "{need}"'
                raise BadInput(file=need.name, found=found or "none", expected=expected, hint=hint)
    return ", ".join(f"{name} {installed[name]}" for name in ("python", "torch", "ray", "mlflow"))


def _store() -> str:
    """Checks that the store is writable, locks and has space; returns its file system."""
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
    near, disks = nearest(store.home()).resolve(), psutil.disk_partitions(all=True)
    above = [disk for disk in disks if near.is_relative_to(disk.mountpoint)]
    return max(above, key=lambda disk: len(disk.mountpoint)).fstype


def _bucket() -> str:
    """Writes a file to the bucket and deletes it, if there is a bucket."""
    if not bucket.url():
        return f"none ({bucket.VARIABLE} is not set)"
    bucket.check(store.home())
    bucket.files().create_dir("ids")
    bucket.files().open_output_stream("ids/doctor").close()
    bucket.files().delete_file("ids/doctor")
    return bucket.location(store.home())


def _mlflow() -> str:
    """Creates a run and deletes it; returns the tracking URI, and the version of a server."""
    import requests

    uri = (backend.shared_uri if "RAY_ADDRESS" in os.environ else backend.uri)()
    if uri == backend.store_uri() and _file_system().startswith(NETWORK):
        found = f"none, with a store on {_file_system()}, where SQLite is not safe"
        expected = "an MLflow server, as http://HOST:5000"
        raise BadInput(option=backend.VARIABLE, found=found, expected=expected)
    if uri == backend.store_uri() and not backend.database().exists():
        return "the first run creates it in the store"
    with backend.mlflow_errors():
        client = backend.client()
        (experiment,) = client.search_experiments(max_results=1)
        run = client.create_run(experiment.experiment_id, run_name="ebflow doctor")
        client.delete_run(run.info.run_id)
    if not uri.startswith("http"):
        return uri
    login = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    answer = requests.get(f"{uri}/version", auth=login if all(login) else None, timeout=WAIT_S)
    return f"{without_password(uri)}: MLflow {answer.text}"


def _ray() -> str:
    """Starts Ray, or connects to the cluster, and checks all nodes; returns their resources."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as Node

    session = connection.start()
    try:
        with store.lock(LOCK):
            nodes = [node for node in ray.nodes() if node["Alive"]]
            check = ray.remote(num_cpus=0)(_check_node)
            places = [Node(node["NodeID"], soft=False) for node in nodes]
            answers = [
                check.options(scheduling_strategy=place).remote(store.identity(), _packages())
                for place in places
            ]
            names = ray.get(answers, timeout=WAIT_S)
    except (RuntimeError, ray.exceptions.RayError) as error:
        raise failure(error) from None
    finally:
        connection.leave(session)
    found = [_resources(*pair) for pair in zip(names, nodes, strict=True)]
    return f"{os.environ.get('RAY_ADDRESS', 'embedded')}; {'; '.join(found)}"


def _resources(name: str, node: dict) -> str:
    amounts = node["Resources"]
    memory = decimal(int(amounts.get("memory", 0)))
    return f"{name}: {amounts.get('CPU', 0):g} CPUs, {amounts.get('GPU', 0):g} GPUs, {memory}"


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
