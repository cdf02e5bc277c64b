"""``ebflow store list|prune|verify``: the artefacts and the unfinished work of the store."""

import time
from collections.abc import Sequence
from contextlib import nullcontext

from rich.filesize import decimal
from rich.progress import track

from ebflow.errors import BadInput
from pipelines import store
from pipelines.reporting.terminal import new_table, terminal
from pipelines.store.inventory import Entry, entries, running_since

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
    if not (store.home() / "locks").is_dir():  # of every run
        raise BadInput(file=store.home(), found="no store", expected="that of earlier runs")
    with nullcontext() if dry_run else store.lock("prune"):
        before = min(time.time() - days * DAY_S, running_since())
        found = [entry for entry in entries() if entry.used < before]
        logs = (store.home() / "logs").glob("*.log")
        old = [log for log in logs if log.lstat().st_mtime < before]
        _show(found, "would be deleted from" if dry_run else "to delete from")
        for log in old:
            terminal().print(f"{log}, {decimal(log.lstat().st_size)}", soft_wrap=True)
        unused = {str(log): log.unlink for log in old}
        unused |= {f"{entry.stage}/{entry.key}": entry.delete for entry in found}
        for name, delete in {} if dry_run else unused.items():
            try:
                delete()
            except OSError as error:  # a stage is at work on it, or it is another user's
                terminal().print(f"{name} stays: {error.strerror}", soft_wrap=True)


def _show(found: Sequence[Entry], where: str) -> None:
    """Prints a table of artefacts and unfinished work, and their total."""
    about, now = dict(store.provenances()), time.time()
    table = new_table("artefact", "size", "days", "unused", "run", "written by")
    for column in (*table.columns[1:4], table.columns[5]):  # a narrow terminal shortens others
        column.no_wrap = True
    for entry in found:
        times = (entry.finished, entry.used)
        days = (f"{(now - since) / DAY_S:.1f}" if since else "–" for since in times)
        writer = (about.get(entry.key, {}).get(name, "") for name in ("name", "version"))
        table.add_row(f"{entry.stage}/{entry.key}", decimal(entry.size), *days, *writer)
    terminal().print(table)
    total, place = decimal(sum(entry.size for entry in found)), store.location(store.home())
    unfinished = sum(not entry.finished for entry in found)
    line = f"{len(found) - unfinished} artefacts, {unfinished} unfinished (–): {total} {where}"
    terminal().print(line, place, soft_wrap=True)


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
