"""The environment of Ray and MLflow: loopback only, no telemetry, no noise; logs into a file.

Call :func:`prepare` before either is imported. Variables that the user has set stay. Workers that
Ray starts inherit the settings of glibc, which reads them at their start.
"""

import logging
import os
import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path

from ebflow.errors import BadInput

# Keeps the memory of a freed D×D gradient, in huge pages, for the next step.
HUGE_PAGES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:"
    "glibc.malloc.trim_threshold=4294967296"
)

# At 0, Ray binds every port to loopback, on Linux too.
LOOPBACK_ALONE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

SUBMITTED = "EBFLOW_SUBMITTED"  # Variable of a job: the command that sent it

SETTINGS = {
    "GLIBC_TUNABLES": HUGE_PAGES,
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_MODEL_CATALOG_URI": "",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's is 15: any other program comes first
    "RAY_task_oom_retries": "2",  # without it, Ray would run a stage again forever
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
}


def prepare(*, embed: bool = True) -> None:
    """Sets variables that are not set.

    Unless there is a cluster, it binds an embedded Ray to loopback, behind a random token.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if embed and "RAY_ADDRESS" not in os.environ:
        os.environ[LOOPBACK_ALONE] = "0"
        os.environ["RAY_AUTH_MODE"] = "token"
        # No cloud announces that it takes this machine away.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def again(words: Sequence[str]) -> str:
    """Returns the command that repeats this one from any folder: in a job, that which sent it.

    Raises:
        BadInput: If the working directory was deleted.
    """
    try:
        folder = shlex.quote(str(Path.cwd()))
    except FileNotFoundError:
        raise BadInput("the working directory was deleted: cd into another") from None
    store = os.environ.get("EBFLOW_HOME")
    home = f"EBFLOW_HOME={shlex.quote(store)} " if store else ""
    here = f"cd {folder} && {home}{shlex.join(['ebflow', *words])}"
    return os.environ.get(SUBMITTED, here)


def cpus() -> int:
    """Returns the CPUs that this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def embedded() -> bool:
    """True in the driver of an embedded Ray, and in the processes that it starts."""
    return os.environ.get(LOOPBACK_ALONE) == "0"


def log_to(path: Path) -> None:
    """Appends all logs and warnings, at level INFO, to a file instead of the terminal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(filename=path, level=logging.INFO, format=text, force=True)
    logging.raiseExceptions = False  # if the disk is full, logs are lost, and nothing else fails
    logging.captureWarnings(True)
    for name in ("ray", "redun"):  # they have handlers of their own, which write to the terminal
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("alembic").setLevel(logging.WARNING)  # MLflow migrates a new database
