"""``ebflow runs|ui|store verify``: the runs that MLflow has, and the artefacts of the store."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich import box
from rich.table import Table
from rich.text import Text

from ebflow.errors import BadInput
from pipelines import store
from pipelines.reporting.terminal import terminal
from pipelines.store.files import without_password
from pipelines.tracking import backend

if TYPE_CHECKING:
    from mlflow.entities import Run

SHOWN = ("test/nll", "test/bpd")
COLOURS = {"FINISHED": "green", "RUNNING": "cyan", "FAILED": "red", "KILLED": "yellow"}
ID_LENGTH = 6


@dataclass(frozen=True)
class Runs:
    """Lists tracked runs, newest first: those of `ebflow run`, and searches."""

    best_by: str | None = None
    """metric to order by, such as test/bpd, the best first: the least, or of gains and rates the
    greatest; None: by time"""
    experiment: str | None = None
    """only runs of this experiment, such as density; None: all"""
    limit: int = 20
    """runs at most"""


@dataclass(frozen=True)
class Ui:
    """Serves MLflow on this machine (127.0.0.1) until Ctrl-C."""

    port: int = 5000
    """port, 1 … 65535"""


@dataclass(frozen=True)
class Verify:
    """Reads all artefacts of the store and lists those that are corrupt.

    A run compares only sizes and modification times. It recomputes corrupt artefacts once they
    are deleted.
    """


def run(words: Sequence[str]) -> int:
    """Prints the table."""
    options = tyro.cli(Runs, prog="ebflow runs", args=words)
    if options.limit < 1:
        raise BadInput(option="--limit", found=options.limit, expected="at least 1")
    from pipelines.tracking import history

    with backend.mlflow_errors():
        client = history.opened()
        runs = history.newest(
            client, experiment=options.experiment, limit=options.limit, metric=options.best_by
        )
    terminal().print(_table(runs, options.best_by))
    return 0


def ui(words: Sequence[str]) -> int:
    """Serves MLflow until Ctrl-C."""
    port = tyro.cli(Ui, prog="ebflow ui", args=words).port
    backend.check_port(port)
    from pipelines.tracking import history

    if (uri := backend.uri()) != backend.store_uri():
        shown = without_password(uri)
        print(f"runs are tracked at MLFLOW_TRACKING_URI = {shown}: look there")
        return 0
    history.opened()
    print(f"MLflow at http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    backend.serve(port, cache / "ebflow" / "ui.log")  # the store may be read-only
    return 0


def verify(words: Sequence[str]) -> int:
    """Prints the places of corrupt artefacts; returns 1 if there are any."""
    tyro.cli(Verify, prog="ebflow store verify", args=words)
    console, found = terminal(), list(store.corrupt())
    for place in found:
        console.print(place, soft_wrap=True)
    where = store.location(store.home())
    console.print(f"{len(found)} corrupt artefacts in {where}", soft_wrap=True)
    return 1 if found else 0


def _table(runs: "Sequence[Run]", best_by: str | None) -> Table:
    metrics = tuple(dict.fromkeys(filter(None, (best_by, *SHOWN))))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("started", min_width=11)
    for name in ("run", "data", "objective"):
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    table.add_column("status", min_width=8)
    for name in metrics:
        table.add_column(name, justify="right", min_width=max(7, len(name)))
    table.add_column("id", min_width=ID_LENGTH)
    for run in runs:
        table.add_row(*_row(run, metrics))
    return table


def _row(run: "Run", metrics: Sequence[str]) -> Iterator[str | Text]:
    from pipelines.tracking.history import label

    tags, status = run.data.tags, run.info.status
    yield f"{datetime.fromtimestamp(run.info.start_time / 1000):%m-%d %H:%M}"
    yield label(run)
    yield tags.get("ebflow.data", "")
    yield tags.get("ebflow.objective", tags.get("ebflow.experiment", ""))
    yield Text(status.lower(), COLOURS.get(status, "default"))
    for name in metrics:
        value = run.data.metrics.get(name)
        yield "" if value is None else f"{value:.5g}"
    yield run.info.run_id[:ID_LENGTH]
