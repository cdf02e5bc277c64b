"""From an error of a stage, wherever it was raised, to one line for the user."""

import re
from pathlib import Path

from ebflow.errors import BadInput, NonFinite

REQUEST = re.compile(
    r"API request to (\w+://)(?:[^/@\s]*@)?([^/\s]+)\S* failed with [a-z ]*exception "
)
"""How MLflow tells of a request that failed; all that urllib3 did follows, and at its end why."""


class StageFailed(RuntimeError):
    """A stage did not finish; the message is a diagnosis in one line.

    Arguments:
        line: The diagnosis.
    """

    log: Path | None = None
    """Where the whole story is."""


class Diverged(StageFailed):
    """A loss or a likelihood was not finite: the outcome of a training, not an accident."""


def failure(error: BaseException) -> BadInput | StageFailed:
    """Returns what to tell the user of an error that came back from a stage."""
    cause = innermost(error)
    line = flat(cause)
    if isinstance(cause, BadInput):
        return BadInput(line)
    if isinstance(cause, NonFinite | Diverged):
        return Diverged(line)
    if isinstance(cause, StageFailed):
        return StageFailed(line)
    return StageFailed(in_one_line(cause))


def flat(error: object) -> str:
    """Returns the message of an error in one line, of a request that failed no more than why."""
    line = " ".join(str(error).split())
    found = REQUEST.search(line)
    if found is None:
        return line
    server, why = "".join(found.groups()), _reason(line[found.end() :])
    return f"{line[: found.start()]}request to {server} failed: {why}"


def _reason(told: str) -> str:
    """Returns the innermost reason of what urllib3 tells: behind its errors' names and places."""
    _, caused, why = told.rpartition("Caused by ")
    if not caused:
        return told
    why = why.partition("(")[2].partition("))")[0]
    for before in ("): ", ", "):
        why = why.rpartition(before)[2]
    return re.sub(r"['\"]\)*$", "", why.lstrip("'\""))


def in_one_line(error: BaseException) -> str:
    """Returns kind and message of what is behind an error, in one line."""
    cause = innermost(error)
    return f"{type(cause).__name__}: {flat(cause)}"[:400]


def innermost(error: BaseException) -> BaseException:
    """Follows what Ray wraps around an error of tasks and workers, and what SQL does."""
    failures = getattr(error, "worker_failures", None) or {}
    inner = getattr(error, "cause", None) or next(iter(failures.values()), None)
    for name in ("controller_failure", "health_check_failure", "orig"):
        inner = inner or getattr(error, name, None)
    return innermost(inner) if isinstance(inner, BaseException) else error
