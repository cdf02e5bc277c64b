"""The runs in MLflow, as lists. Reads only."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Run

from ebflow.errors import BadInput
from pipelines import store
from pipelines.store.files import without_password
from pipelines.tracking import backend

NO_PARENT = "tags.`mlflow.parentRunId` IS NULL"
MOST = 50_000
"""Runs that MLflow returns at most."""

GREATEST = re.compile(r"(gain|per_s|accuracy)$")
"""Metrics whose greatest value is the best; of all others it is the least."""


def opened() -> MlflowClient:
    """Returns the client of the store in use; creates no store.

    Raises:
        BadInput: If there is none yet.
    """
    if backend.uri() == backend.store_uri() and not backend.database().exists():
        raise BadInput(
            file=store.home(), found="no runs", expected="those of `ebflow run density`"
        )
    return MlflowClient(backend.uri())


def newest(
    client: MlflowClient, *, experiment: str | None, limit: int, metric: str | None = None
) -> list[Run]:
    """Returns runs that are no stage of another, the newest or the best first.

    Arguments:
        client: The client of the store.
        experiment: Its name; None: all.
        limit: Most runs.
        metric: Metric to order by; runs without it are left out.

    Raises:
        BadInput: If there is no such experiment, no run in it, or none with the metric.
    """
    places = _experiments(client, experiment)
    runs = list(client.search_runs(places, NO_PARENT, max_results=MOST if metric else limit))
    if metric is not None:
        _check_metric(runs, metric)
        measured = (run for run in runs if metric in run.data.metrics)
        best = sorted(measured, key=lambda run: run.data.metrics[metric])
        runs = (best[::-1] if GREATEST.search(metric) else best)[:limit]
    if not runs:
        raise BadInput(file=without_password(backend.uri()), found="no runs")
    return runs


def tagged(client: MlflowClient, experiment: str, tags: Mapping[str, str]) -> Sequence[Run]:
    """Returns the runs of an experiment that have some tags, the newest first."""
    place = client.get_experiment_by_name(experiment)
    condition = " AND ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
    return client.search_runs([place.experiment_id], condition) if place else []


def label(run: Run) -> str:
    """Returns the short name of a run."""
    return run.data.tags.get("ebflow.name", run.info.run_name)


def _experiments(client: MlflowClient, name: str | None) -> list[str]:
    ids = {one.name: one.experiment_id for one in client.search_experiments()}
    if name is None:
        return list(ids.values())
    if name not in ids:
        expected = f"one of {', '.join(sorted(ids))}"
        raise BadInput(option="--experiment", found=repr(name), expected=expected)
    return [ids[name]]


def _check_metric(runs: Iterable[Run], metric: str) -> None:
    """Raises BadInput if no run has a metric; names the nearest that one has."""
    names = sorted({name for run in runs for name in run.data.metrics})
    if metric not in names:
        near = difflib.get_close_matches(metric, names, n=3, cutoff=0.3) or names[:3]
        such = f"such as {', '.join(near)}" if near else "but no run has any"
        expected = f"a metric of these runs, {such}"
        raise BadInput(option="--best-by", found=repr(metric), expected=expected)
