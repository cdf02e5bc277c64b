"""``ebflow store list|prune|verify``: the artefacts and the unfinished work of the store."""

import time
from collections.abc import Sequence
from contextlib import nullcontext

from rich.filesize import decimal
from rich.progress import track

from ebflow.errors import BadInput
from pipelines import store
from pipelines.reporting.terminal import new_table, terminal
from pipelines.store.inventory import Entry, entries, logs, running_since

DAY_S = 86400.0


def contents(stage: str | None = None) -> None:
    """Lists artefacts and unfinished work (–), the largest first, with their ages in days.

    A run uses an artefact if it writes it, or finds it cached.

    Arguments:
        stage: only those of a stage, such as train
    """
    _show([entry for entry in entries() if stage in (None, entry.stage)], "in")


def prune(days: float, dry_run: bool = False) -> None:
    """Deletes artefacts, unfinished work and logs that no run of the last days has used.

    What a running pipeline uses stays, and so do results and the files of MLflow.

    Arguments:
        days: days without use after which something is deleted
        dry_run: print what would be deleted; delete nothing
    """
    if not days >= 0:
        raise BadInput(option="--days", found=days, expected="at least 0")
    if not store.exists():
        raise BadInput(file=store.home(), found="no store", expected="that of earlier runs")
    with nullcontext() if dry_run else store.lock("prune"):
        before = min(time.time() - days * DAY_S, running_since())
        old = [path for path in logs() if path.stat().st_mtime < before]
        found = [entry for entry in entries() if entry.used < before]
        if not dry_run:
            found = [entry for entry in found if entry.delete()]
        _show(found, "would be deleted from" if dry_run else "deleted from")
        for path in old:
            terminal().print(f"{path}, {decimal(path.stat().st_size)}", soft_wrap=True)
            if not dry_run:
                path.unlink()


def _show(found: Sequence[Entry], where: str) -> None:
    """Prints a table of artefacts and unfinished work, and their total."""
    console, now = terminal(), time.time()
    shown = new_table("artefact", "size", "days", "unused", "run", "written by")
    for column in shown.columns:
        column.no_wrap = True
    for entry in found:
        days = [
            f"{(now - since) / DAY_S:.1f}" if since else "–"
            for since in (entry.finished, entry.used)
        ]
        writer = (entry.about.get(name, "") for name in ("name", "version"))
        shown.add_row(f"{entry.stage}/{entry.key}", decimal(entry.size), *days, *writer)
    console.print(shown)
    work = sum(not entry.finished for entry in found)
    total = decimal(sum(entry.size for entry in found))
    line = f"{len(found) - work} artefacts, {work} unfinished (–): {total} {where}"
    console.print(line, store.location(store.home()), soft_wrap=True)


def verify() -> int:
    """Reads all artefacts of the store and lists those that are corrupt.

    A run compares only sizes and modification times. It recomputes corrupt artefacts once they
    are deleted.
    """
    console = terminal()
    hidden = not console.is_terminal
    places = track(store.recorded(), console=console, transient=True, disable=hidden)
    found = [place for place in places if store.is_corrupt(place)]
    for place in found:
        console.print(place, soft_wrap=True)
    console.print(f"{len(found)} corrupt artefacts in {store.home()}", soft_wrap=True)
    return 1 if found else 0
