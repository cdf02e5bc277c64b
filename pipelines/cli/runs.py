"""``ebflow runs|ui|store verify``: the runs that MLflow has, and the artefacts of the store."""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from ebflow.errors import BadInput
from pipelines import store
from pipelines.reporting.terminal import terminal
from pipelines.store.files import without_password
from pipelines.tracking import backend

if TYPE_CHECKING:
    from mlflow.entities import Run

SHOWN = ("test/nll", "test/bpd")
ID_LENGTH = 6


def runs(best_by: str | None = None, limit: int = 20) -> None:
    """Lists tracked runs, newest first: those of `ebflow run`, and searches.

    Arguments:
        best_by: metric to order by, such as test/bpd, the best first: the least, or of gains and
            rates the greatest; None: by time
        limit: runs at most
    """
    if limit < 1:
        raise BadInput(option="--limit", found=limit, expected="at least 1")
    from pipelines.tracking import history

    with backend.mlflow_errors():
        listed = history.newest(history.opened(), limit=limit, metric=best_by)
    terminal().print(_table(listed, best_by))


def ui(port: int = 5000) -> None:
    """Serves MLflow on this machine (127.0.0.1) until Ctrl-C.

    Arguments:
        port: port, 1 … 65535
    """
    backend.check_port(port)
    from pipelines.tracking import history

    if (uri := backend.uri()) != backend.store_uri():
        print(f"runs are tracked at MLFLOW_TRACKING_URI = {without_password(uri)}: look there")
        return
    history.opened()
    print(f"MLflow at http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    backend.serve(port, cache / "ebflow" / "ui.log")  # the store may be read-only


def verify() -> int:
    """Reads all artefacts of the store and lists those that are corrupt.

    A run compares only sizes and modification times. It recomputes corrupt artefacts once they
    are deleted.
    """
    console, found = terminal(), list(store.corrupt())
    for place in found:
        console.print(place, soft_wrap=True)
    where = store.location(store.home())
    console.print(f"{len(found)} corrupt artefacts in {where}", soft_wrap=True)
    return 1 if found else 0


def _table(runs: "Sequence[Run]", best_by: str | None) -> Table:
    from pipelines.tracking.history import label

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
        info, tags, values = run.info, run.data.tags, run.data.metrics
        table.add_row(
            f"{datetime.fromtimestamp(info.start_time / 1000):%m-%d %H:%M}",
            label(run),
            tags.get("ebflow.data", ""),
            tags.get("ebflow.objective", tags.get("ebflow.experiment", "")),
            info.status.lower(),
            *(f"{values[name]:.5g}" if name in values else "" for name in metrics),
            info.run_id[:ID_LENGTH],
        )
    return table
