"""From a search space and prepared data to trials."""

__all__ = ["search"]

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import psutil

from ebflow.data.schema import Manifest
from pipelines import rows
from pipelines.config import Training
from pipelines.tracking import StageRun
from tuning import records
from tuning.begun import mark
from tuning.config import SearchConfig
from tuning.search import TRIALS
from tuning.search import search as run_trials
from tuning.tracked import TrialRuns


def search(
    config: SearchConfig, base: Training, data: Path, *, output: Path, work: Path, run: StageRun
) -> None:
    """Writes ``trials.json``, ``search.json`` and the rows of every trial.

    ``search.json`` has the seconds of the search and the share of this machine's cores that were
    busy meanwhile; of a search that was interrupted, since it went on.
    """
    run.log_params({"search": config.model_dump(), "base": base.model_dump()})
    run.log_input(Manifest.load(data), "training")
    mark(config, base, work)
    began, before = time.time(), psutil.cpu_times()
    with TrialRuns(work / TRIALS, run):
        found = run_trials(config, base, data, work)
    summary = {"seconds": time.time() - began, "cpu_busy": _busy(before, psutil.cpu_times())}
    (output / "trials.json").write_text(json.dumps([asdict(r) for r in found], indent=1) + "\n")
    (output / "search.json").write_text(json.dumps(summary, indent=1) + "\n")
    _keep_rows(work / TRIALS, output)
    states = [record.state for record in found]
    counts = {f"trials/{state}": float(states.count(state)) for state in sorted(set(states))}
    run.log_metrics({f"search/{name}": value for name, value in summary.items()} | counts)
    run.log_artifacts(output / "trials.json")


def _busy(before: tuple[float, ...], after: tuple[float, ...]) -> float:
    """Returns the share of all cores' time between two readings that was not idle."""
    spent = {
        name: getattr(after, name) - getattr(before, name)
        for name in after._fields
        if name not in ("guest", "guest_nice")
    }
    idle = spent["idle"] + spent.get("iowait", 0.0)
    return 1 - idle / sum(spent.values())


def _keep_rows(root: Path, output: Path) -> None:
    (output / "rows").mkdir()
    for record in records.read(root):
        path = records.folder(root, record.number) / rows.FILE
        if path.exists():
            shutil.copy(path, output / "rows" / f"{record.number:03d}.jsonl")
