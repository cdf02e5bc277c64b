"""The runs that MLflow keeps: listed, found by a name or an id, and their curves. Reads only."""

__all__ = ["children", "curve", "known_metrics", "label", "newest", "opened", "resolve"]

import difflib
import re
from collections.abc import Iterable, Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from ebflow.errors import BadInput
from pipelines import store, tracking
from pipelines.urls import without_password

TOP = "tags.`mlflow.parentRunId` IS NULL"
GREATEST = re.compile(r"(gain|per_s|accuracy)$")
"""Metrics of which the greatest is the best; of all others it is the least."""

LEAST_ID = 4
"""Characters that a prefix of an id has at least."""

MOST = 50_000
"""Runs that MLflow returns at a time."""


def opened() -> MlflowClient:
    """Returns a client of the store that is in use; makes none.

    Raises:
        BadInput: If there is none yet.
    """
    place = tracking.uri()
    if place == tracking.store_uri() and not (store.home() / "mlflow.db").exists():
        raise BadInput(f"{store.home()}: found no runs, expected those of `ebflow run density`")
    return MlflowClient(place)


def newest(
    client: MlflowClient, *, experiment: str | None, limit: int, metric: str | None = None
) -> list[Run]:
    """Returns runs that are no stage of another, the newest or the best first.

    Arguments:
        client: Of the store.
        experiment: Its name; None: all.
        limit: How many at most.
        metric: What to order by; runs without it are left out.

    Raises:
        BadInput: If there is no such experiment, no run in it, or none with the metric.
    """
    places = _experiments(client, experiment)
    if metric is None:
        runs = client.search_runs(places, TOP, max_results=limit)
    else:
        runs = client.search_runs(places, TOP, max_results=MOST)
        known_metrics(runs, metric, "--best-by")
        measured = (run for run in runs if metric in run.data.metrics)
        best = sorted(measured, key=lambda run: run.data.metrics[metric])
        runs = (best[::-1] if GREATEST.search(metric) else best)[:limit]
    if not runs:
        raise BadInput(f"{without_password(tracking.uri())}: found no runs")
    return runs


def _experiments(client: MlflowClient, name: str | None) -> list[str]:
    known = {found.name: found.experiment_id for found in client.search_experiments()}
    if name is None:
        return list(known.values())
    if name not in known:
        raise BadInput(f"--experiment: found {name!r}, expected one of {', '.join(sorted(known))}")
    return [known[name]]


def known_metrics(runs: Iterable[Run], metric: str, option: str) -> None:
    """Raises BadInput if no run has a metric; names the nearest that one has."""
    names = sorted({name for run in runs for name in run.data.metrics})
    if metric not in names:
        near = difflib.get_close_matches(metric, names, n=3, cutoff=0.3) or names[:3]
        expected = f"such as {', '.join(near)}" if near else "but no run has any"
        raise BadInput(f"{option}: found {metric!r}, expected a metric of these runs, {expected}")


def children(client: MlflowClient, run: Run) -> list[Run]:
    """Returns the stages of a run, or the trials of a search, in the order of their start."""
    found = client.search_runs(
        [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    )
    return sorted(found, key=lambda child: child.info.start_time)


def resolve(client: MlflowClient, word: str) -> Run:
    """Returns the run that a word means.

    Arguments:
        client: Of the store.
        word: The beginning of a run's id; or a name, which means its newest run that finished.

    Raises:
        BadInput: If no run is meant, or several are.
    """
    runs = client.search_runs(_experiments(client, None), max_results=MOST)
    named = [run for run in runs if word in (label(run), run.info.run_name)]
    finished = [run for run in named if run.info.status == "FINISHED"]
    if named:
        return (finished or named)[0]
    begun = [run for run in runs if run.info.run_id.startswith(word)]
    if len(word) < LEAST_ID or not begun:
        raise BadInput(
            f"found no run {word!r}, expected a name, or {LEAST_ID} characters of an id at least, "
            "as `ebflow runs` shows them"
        )
    if len(begun) > 1:
        raise BadInput(f"found {len(begun)} runs {word}…, expected more of the id")
    return begun[0]


def label(run: Run) -> str:
    """Returns the short name of a run."""
    return run.data.tags.get("ebflow.name", run.info.run_name)


def curve(client: MlflowClient, run: Run, metric: str) -> Sequence[Metric]:
    """Returns the points of a metric by rising step."""
    found = client.get_metric_history(run.info.run_id, metric)
    return sorted(found, key=lambda point: (point.step, point.timestamp))
