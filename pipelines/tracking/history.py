"""The runs that MLflow keeps: listed. Reads only."""

import difflib
import re
from collections.abc import Iterable

from ebflow.errors import BadInput
from pipelines import store
from pipelines.store.urls import without_password
from pipelines.tracking import backend, reading
from pipelines.tracking.reading import Reader, TrackedRun

PARENT = "mlflow.parentRunId"
GREATEST = re.compile(r"(gain|per_s|accuracy)$")
"""Metrics of which the greatest is the best; of all others it is the least."""


def opened() -> Reader:
    """Returns the store that is in use; makes none.

    Raises:
        BadInput: If there is none yet.
    """
    place = backend.uri()
    if place == backend.store_uri() and not (store.home() / "mlflow.db").exists():
        raise BadInput(f"{store.home()}: found no runs, expected those of `ebflow run density`")
    return reading.opened()


def newest(
    reader: Reader, *, experiment: str | None, limit: int, metric: str | None = None
) -> list[TrackedRun]:
    """Returns runs that are no stage of another, the newest or the best first.

    Arguments:
        reader: The store.
        experiment: Its name; None: all.
        limit: How many at most.
        metric: What to order by; runs without it are left out.

    Raises:
        BadInput: If there is no such experiment, no run in it, or none with the metric.
    """
    places = None if experiment is None else [_experiment(reader, experiment)]
    runs = reader.runs({PARENT: None}, places, limit if metric is None else reading.MOST)
    if metric is not None:
        _check_metric(runs, metric)
        measured = (run for run in runs if metric in run.metrics)
        best = sorted(measured, key=lambda run: run.metrics[metric])
        runs = (best[::-1] if GREATEST.search(metric) else best)[:limit]
    if not runs:
        raise BadInput(f"{without_password(backend.uri())}: found no runs")
    return runs


def _experiment(reader: Reader, name: str) -> str:
    known = reader.experiments()
    if name not in known:
        raise BadInput(f"--experiment: found {name!r}, expected one of {', '.join(sorted(known))}")
    return known[name]


def _check_metric(runs: Iterable[TrackedRun], metric: str) -> None:
    """Raises BadInput if no run has a metric; names the nearest that one has."""
    names = sorted({name for run in runs for name in run.metrics})
    if metric not in names:
        near = difflib.get_close_matches(metric, names, n=3, cutoff=0.3) or names[:3]
        expected = f"such as {', '.join(near)}" if near else "but no run has any"
        raise BadInput(f"--best-by: found {metric!r}, expected a metric of these runs, {expected}")


def children(reader: Reader, run: TrackedRun) -> list[TrackedRun]:
    """Returns the stages of a run, or the trials of a search, in the order of their start."""
    found = reader.runs({PARENT: run.id}, [run.experiment])
    return sorted(found, key=lambda child: child.started)


def label(run: TrackedRun) -> str:
    """Returns the short name of a run."""
    return run.tags.get("ebflow.name", run.name)
