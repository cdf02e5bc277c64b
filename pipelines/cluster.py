"""Ray, embedded in this machine and bound to loopback, or the cluster at ``RAY_ADDRESS``."""

__all__ = ["start", "stop"]

import logging
import os
import tempfile
from collections.abc import Sequence
from typing import Any

from pipelines import store

LOOPBACK = "127.0.0.1"
GRACE_S = 10.0


def start(workers: int) -> None:
    """Connects to Ray; an embedded one gets at least a logical CPU a worker."""
    import ray

    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False, runtime_env={"env_vars": _environment()})
        return
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(
        address="local",
        num_cpus=max(workers, os.cpu_count() or 1),
        include_dashboard=True,
        dashboard_host=LOOPBACK,
        _node_ip_address=LOOPBACK,
        _temp_dir=tempfile.mkdtemp(prefix="ebflow-ray-"),
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def stop(running: Sequence[Any]) -> None:
    """Interrupts the given tasks, gives them a little time to end well, and leaves Ray."""
    import ray

    unfinished = ray.wait(list(running), num_returns=len(running), timeout=0)[1]
    for reference in unfinished:
        ray.cancel(reference)
    if unfinished:
        ray.wait(unfinished, num_returns=len(unfinished), timeout=GRACE_S)
    ray.shutdown()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    return {"EBFLOW_HOME": str(store.home()), **kept}
