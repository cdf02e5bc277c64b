"""From a search space and what trials read to trials."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pipelines import store
from pipelines.data.manifest import Manifest
from pipelines.tracking.run import StageRun
from tuning import records
from tuning.config import TuneConfig
from tuning.problems import problem
from tuning.search import TUNE
from tuning.search import search as run_trials
from tuning.tracked import TrialRuns


def search(config: TuneConfig, inputs: Sequence[Path], *, run: StageRun) -> None:
    """Writes ``trials.json`` and ``search.json``.

    That has the seconds of the search, and the CPUs on which its trials trained, on the average
    over them; of a search that was interrupted, since it went on.
    """
    searched, root = problem(config), run.work / records.TRIALS
    run.log_params(config.model_dump())
    run.log_input(Manifest.load(inputs[0]), "training")
    records.mark(config, run.work)
    if not (run.work / TUNE).exists():
        store.forget(root)
    began, before = time.monotonic(), _trained(records.read(root))
    with TrialRuns(root, searched, run):
        found = run_trials(searched, inputs, run.work, run.reporter)
    seconds, trained = time.monotonic() - began, _trained(found) - before
    summary = {"seconds": seconds, "cpus_busy": trained * searched.base.needs["CPU"] / seconds}
    (run.output / records.ALL).write_text(json.dumps([asdict(r) for r in found], indent=1) + "\n")
    (run.output / "search.json").write_text(json.dumps(summary, indent=1) + "\n")
    states = [record.state for record in found]
    counts = {f"trials/{state}": float(states.count(state)) for state in sorted(set(states))}
    run.log_metrics({f"search/{name}": value for name, value in summary.items()} | counts)
    run.log_artifacts(run.output / records.ALL)


def _trained(found: Sequence[records.Record]) -> float:
    """Returns how long trials have trained, in seconds."""
    return sum(record.seconds for record in found)
