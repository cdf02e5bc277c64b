"""The runs in MLflow, as lists. Reads only."""

import re

from mlflow import MlflowClient
from mlflow.entities import Run

from ebflow.errors import BadInput
from pipelines import store
from pipelines.store.files import without_password
from pipelines.tracking import backend

NO_PARENT = "tags.`mlflow.parentRunId` IS NULL"

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


def newest(client: MlflowClient, *, limit: int, metric: str | None = None) -> list[Run]:
    """Returns runs that are no stage of another, the newest or the best first.

    Arguments:
        client: The client of the store.
        limit: Most runs.
        metric: Metric to order by; runs without it are left out.

    Raises:
        BadInput: If there is no run, or none with the metric.
    """
    experiments = [one.experiment_id for one in client.search_experiments()]
    direction = "DESC" if metric and GREATEST.search(metric) else "ASC"
    order = [f"metrics.`{metric}` {direction}"] if metric else None
    runs = list(client.search_runs(experiments, NO_PARENT, max_results=limit, order_by=order))
    if not runs:
        raise BadInput(file=without_password(backend.uri()), found="no runs")
    if metric is None:
        return runs
    measured = [run for run in runs if metric in run.data.metrics]
    if not measured:
        names = sorted({name for run in runs for name in run.data.metrics})
        expected = f"a metric of these runs: {', '.join(names) or 'they have none'}"
        raise BadInput(option="--best-by", found=repr(metric), expected=expected)
    return measured


def label(run: Run) -> str:
    """Returns the short name of a run."""
    return run.data.tags.get("ebflow.name", run.info.run_name)
