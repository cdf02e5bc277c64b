"""``ebflow doctor``: checks of versions, store, MLflow and Ray, one line each."""

import os
import platform
import socket
from importlib.metadata import distributions, metadata, requires

import psutil
from packaging.requirements import Requirement
from rich.filesize import decimal

from ebflow.errors import BadInput, printable
from pipelines import store
from pipelines.cluster import connection
from pipelines.errors import StageFailed, failure
from pipelines.reporting.terminal import terminal
from pipelines.store import bucket
from pipelines.store.files import check_writable, is_locked, without_password
from pipelines.tracking import backend

LOCK = "doctor"
NETWORK = ("afs", "ceph", "cifs", "fuse", "lustre", "nfs", "smb")  # Starts of file systems' names
WAIT_S = 60.0  # Seconds in which all nodes must answer


def doctor(address: str | None = None) -> int:
    """Checks versions, store, MLflow and Ray, and prints a line for each.

    Arguments:
        address: of a cluster's dashboard, http://HOST:PORT: the checks run there, as a job
    """
    if address is not None:
        from pipelines.cli.submit import run_doctor

        return run_doctor(address)
    code, checks = 0, {"versions": _versions, "store": _store, "MLflow": _mlflow, "Ray": _ray}
    for name, check in checks.items():
        try:
            mark, line = "✓", check()
        except (BadInput, OSError, StageFailed) as error:
            mark, line, code = "✗", str(error), 1
        terminal().print(f"{mark} {name:<9} {printable(line)}", soft_wrap=True)
    return code


def _versions() -> str:
    """Compares versions with those that ebflow requires; returns them."""
    found = [one for one in distributions() if one.metadata["Name"]]  # pip may leave others
    installed = {one.name.lower(): one.version for one in reversed(found)}
    installed["python"] = platform.python_version()
    needs = [*(requires("ebflow") or ()), f"python{metadata('ebflow')['Requires-Python']}"]
    for need in map(Requirement, needs):
        found = installed.get(need.name.lower(), "none")
        needed = need.marker is None or need.marker.evaluate({"extra": "system"})
        if needed and (found == "none" or not need.specifier.contains(found, prereleases=True)):
            hint = f'Run: pip install "{need.name}{need.specifier}"'
            raise BadInput(file=need.name, found=found, expected=need.specifier, hint=hint)
    return ", ".join(f"{name} {installed[name]}" for name in ("python", "torch", "ray", "mlflow"))


def _store() -> str:
    """Checks that the store is writable, locks and has space; returns its file system."""
    check_writable("EBFLOW_HOME", store.home())
    bucket.check(store.home())
    with store.lock(LOCK):
        free = decimal(psutil.disk_usage(str(store.home())).free)
    return f"{store.location(store.home())}: {_file_system()}, {free} free"


def _file_system() -> str:
    """Returns the kind of the file system on which the store is."""
    home, disks = store.home().resolve(), psutil.disk_partitions(all=True)
    above = [disk for disk in disks if home.is_relative_to(disk.mountpoint)]
    return max(above, key=lambda disk: len(disk.mountpoint)).fstype


def _mlflow() -> str:
    """Writes a tag of an experiment; returns the tracking URI."""
    uri = (backend.shared_uri if "RAY_ADDRESS" in os.environ else backend.uri)()
    if uri == backend.store_uri():
        if _file_system().startswith(NETWORK):
            found = f"none, with a store on {_file_system()}, where SQLite is not safe"
            expected = "an MLflow server, as http://HOST:5000"
            raise BadInput(option=backend.VARIABLE, found=found, expected=expected)
        if not backend.database().exists():
            return "the first run creates it in the store"
    with backend.mlflow_errors(), backend.announced(terminal().print):
        client = backend.client()
        for experiment in client.search_experiments(max_results=1):
            client.set_experiment_tag(experiment.experiment_id, "ebflow.doctor", "checked")
    return without_password(uri)


def _ray() -> str:
    """Starts Ray, or connects to the cluster, and checks all nodes; returns their resources."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    session = connection.start()
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        with store.lock(LOCK):
            check = ray.remote(num_cpus=0)(_node)
            places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
            here = store.identity(), _versions()
            answers = [check.options(scheduling_strategy=place).remote(*here) for place in places]
            names = ray.get(answers, timeout=WAIT_S)
    except (RuntimeError, ray.exceptions.RayError) as error:
        raise failure(error) from None
    finally:
        connection.leave(session)
    kinds = ("CPU", "GPU")
    amounts = [[f"{node['Resources'].get(kind, 0):g} {kind}" for kind in kinds] for node in nodes]
    found = [f"{name} ({', '.join(parts)})" for name, parts in zip(names, amounts, strict=True)]
    return f"{os.environ.get('RAY_ADDRESS', 'embedded')}: {'; '.join(found)}"


def _node(identity: str, versions: str) -> str:
    """Checks that a node has the store and the versions of the driver; returns its name."""
    store.require_same_store(identity)
    name, lock = socket.gethostname(), store.home() / "locks" / LOCK
    if not bucket.url() and not is_locked(lock):
        found = f"a lock that does not hold on node {name}"
        raise BadInput(file=lock, found=found, expected="a file system with flock")
    if (found := _versions()) != versions:
        raise BadInput(file=f"node {name}", found=found, expected=versions)
    return name
