"""Stages on Ray, chained and remembered by redun: the only package that knows how redun works.

redun runs in the driver and keeps, in ``redun.db``, which call of which code gave which artefact.
A stage is found again by its source and that of all that it imports (``digests.py``), its
configuration, and the *content* of the artefacts it reads. What is not found runs as a Ray task;
Ray starts at the first of them, so a fully cached run never does; one that is whole is found by
itself (``finished.py``). What needs redun is imported when it is first asked for: that takes
longer than all else of a run that finds everything.
"""

__all__ = ["ALONE", "RACES", "Artefact", "Context", "Engine", "Outcome", "Retries", "Source",
           "Stage", "Status", "glue", "of_training", "own", "plan"]  # fmt: skip

from importlib import import_module

from pipelines.engine.demand import ALONE, of_training, own
from pipelines.engine.outcome import Outcome, Status
from pipelines.engine.retries import Retries
from pipelines.engine.stages import Context, Stage
from pipelines.engine.values import Artefact, Source

_HOMES = {"RACES": "evaluation", "Engine": "evaluation", "glue": "tasks", "plan": "planning"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
