"""``ebflow runs|logs``: the runs that MLflow has, and the logs of runs in the store."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.table import Table

from ebflow.errors import BadInput
from pipelines import store
from pipelines.reporting.terminal import new_table, terminal
from pipelines.store.files import without_password
from pipelines.tracking import backend

if TYPE_CHECKING:
    from mlflow.entities import Run

NO_PARENT = "tags.`mlflow.parentRunId` IS NULL"

Best = Literal["least", "greatest"]

# Ends of metrics whose greatest, or least, value is the best.
ENDS: dict[Best, re.Pattern[str]] = {
    "greatest": re.compile(r"(gain|gain_over_mixture|per_s|accuracy)$"),
    "least": re.compile(r"(nll|bpd|kl|fisher|loss|rmse|mae|crps)$"),
}
# Metrics of studies mean many things. Of the others that are not listed, the least is the best.
STUDIES = "study/"

# A line of a log with the id of the run that starts there.
RUN_STARTS = re.compile(r"(?m)^(?=\S+ \S+ INFO ebflow.engine: MLflow run )")

METRICS = ("test/nll", "test/bpd")
ID_LENGTH = 6


def runs(best_by: str | None = None, best: Best | None = None, limit: int = 20) -> None:
    """Lists tracked runs, newest first: those of `ebflow run`, and searches.

    Arguments:
        best_by: metric to order by, such as test/bpd, the best first; None: by time
        best: which value of this metric is the best; None: the greatest of gains, rates and
            accuracies, the least of the others; of most metrics of studies it must be given
        limit: runs at most
    """
    if limit < 1:
        raise BadInput(option="--limit", found=limit, expected="at least 1")
    if best and not best_by:
        raise BadInput(option="--best", found=best, expected="--best-by with the metric")
    direction = {"greatest": "DESC", "least": "ASC"}
    order = best_by and [f"metrics.`{best_by}` {direction[best or _best(best_by)]}"]
    console = terminal()
    with backend.mlflow_errors(), backend.announced(console.print):
        client = backend.client()
        experiments = [one.experiment_id for one in client.search_experiments()]
        listed = client.search_runs(experiments, NO_PARENT, max_results=limit, order_by=order)
    if not listed:
        raise BadInput(file=without_password(backend.uri()), found="no runs")
    if best_by:
        listed = _measured(listed, best_by)
    metrics = dict.fromkeys(filter(None, (best_by, *METRICS)))
    console.print(_table(listed, metrics), crop=False)  # Cropped lines would lack the id
    if best_by:
        console.print(f"ordered by {best_by}, the {best or _best(best_by)} first")


def logs(run: Annotated[str, tyro.conf.Positional], /) -> None:
    """Prints the log of a run, which is in the store of the machine or the cluster where it ran.

    Arguments:
        run: its name, or the start of its id, as `ebflow runs` prints it
    """
    paths = (store.home() / "logs").glob("*.log")
    texts = {path.stem: path.read_text(encoding="utf-8", errors="replace") for path in paths}
    parts = [part for text in texts.values() for part in RUN_STARTS.split(text)]
    start = f" MLflow run {run}"
    found = [part for part in parts if run and start in part.partition("\n")[0]]
    if not (found := [texts[run]] if run in texts else found):
        names = ", ".join(sorted(texts)) or "the name of a run"
        hint = "`ray job logs ID` prints what a submitted job has printed"
        raise BadInput(file=store.home() / "logs", found=f"no {run!r}", expected=names, hint=hint)
    print(*found, sep="", end="")


def _best(metric: str) -> Best:
    """Returns which value of a metric is the best; raises BadInput if its name does not show."""
    for best, end in ENDS.items():
        if end.search(metric):
            return best
    if metric.startswith(STUDIES):
        expected = f"least or greatest, the best value of {metric}"
        raise BadInput(option="--best", found="no value", expected=expected)
    return "least"


def _measured(runs: "Sequence[Run]", metric: str) -> "list[Run]":
    """Returns the runs that have a metric; raises BadInput if none has."""
    measured = [run for run in runs if metric in run.data.metrics]
    if not measured:
        names = sorted({name for run in runs for name in run.data.metrics})
        expected = f"a metric of these runs: {', '.join(names) or 'they have none'}"
        raise BadInput(option="--best-by", found=repr(metric), expected=expected)
    return measured


def _table(runs: "Iterable[Run]", metrics: Iterable[str]) -> Table:
    table = new_table()
    table.add_column("started", min_width=11)
    for name in ("run", "data", "objective"):
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    table.add_column("status", min_width=8)
    for name in metrics:
        table.add_column(name, justify="right", min_width=max(7, len(name)))
    table.add_column("id", min_width=ID_LENGTH)
    for run in runs:
        info, tags, values = run.info, run.data.tags, run.data.metrics
        table.add_row(
            f"{datetime.fromtimestamp(info.start_time / 1000):%m-%d %H:%M}",
            tags.get("ebflow.name", info.run_name),
            tags.get("ebflow.data", ""),
            tags.get("ebflow.objective", tags.get("ebflow.experiment", "")),
            info.status.lower(),
            *(f"{values[name]:.5g}" if name in values else "" for name in metrics),
            info.run_id[:ID_LENGTH],
        )
    return table
