"""From an error of a stage, wherever it was raised, to one error for the user."""

import os
from pathlib import Path

from ebflow.errors import BadInput, NonFinite, printable


class StageFailed(RuntimeError):
    """A stage did not finish; the message is a diagnosis in one line."""

    log: Path | None = None
    """The log of the run."""


class TransientFailure(StageFailed):
    """MLflow was not reached, or failed: the same request may succeed later."""


class Diverged(StageFailed):
    """A loss or a likelihood was not finite: a result of a training, not an accident."""


def failure(error: BaseException) -> BadInput | StageFailed:
    """Returns the error to report, given one that came back from a stage."""
    cause = innermost(error)
    if isinstance(cause, BadInput | StageFailed):
        return cause
    if isinstance(cause, NonFinite):
        return Diverged(printable(str(cause)))
    if type(cause).__name__ == "WorkerCrashedError":
        why = "it hung for longer than --cluster.patience, or the system killed it (memory?)"
        return StageFailed(f"the process of a stage died: {why}")
    return StageFailed(in_one_line(cause))


def in_one_line(error: BaseException) -> str:
    """Returns kind and message of the error behind another one, in one line."""
    cause = innermost(error)
    return f"{type(cause).__name__}: {printable(without_login(str(cause)))}"[:400]


def without_login(text: str) -> str:
    """Returns a text without the user and password of MLflow's URL, which MLflow prints."""
    login, at, _ = os.environ.get("MLFLOW_TRACKING_URI", "").partition("//")[2].rpartition("@")
    return text.replace(f"{login}@", "") if at else text


def innermost(error: BaseException) -> BaseException:
    """Returns the error that Ray wrapped into an error of a task or a worker, or SQLAlchemy."""
    failures = getattr(error, "worker_failures", None) or {}
    inner = getattr(error, "cause", None) or next(iter(failures.values()), None)
    for name in ("controller_failure", "health_check_failure", "orig"):
        inner = inner or getattr(error, name, None)
    return innermost(inner) if isinstance(inner, BaseException) else error


def root(error: BaseException) -> BaseException:
    """Returns the first error of a chain: why a request to a server failed, without its URL."""
    return root(error.__context__) if error.__context__ is not None else error
