"""From a search space and what trials read to trials."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ebflow.data.manifest import Manifest
from pipelines import store
from pipelines.config import Section
from pipelines.tracking import StageRun
from pipelines.training import metrics_log
from tuning import records
from tuning.config import SearchConfig
from tuning.problems import problem
from tuning.search import TRIALS, TUNE
from tuning.search import search as run_trials
from tuning.tracked import TrialRuns


def search(
    config: SearchConfig,
    base: Section,
    inputs: Sequence[Path],
    *,
    output: Path,
    work: Path,
    run: StageRun,
) -> None:
    """Writes ``trials.json``, ``search.json`` and the rows of every trial.

    ``search.json`` has the seconds of the search, and the CPUs on which its trials trained, on the
    average over them; of a search that was interrupted, since it went on.
    """
    run.log_params({"search": config.model_dump(), "base": base.model_dump()})
    run.log_input(Manifest.load(inputs[0]), "training")
    records.mark(config, base, work)
    if not (work / TUNE).exists():
        store.forget(work / TRIALS)
    began, before = time.monotonic(), _trained(records.read(work / TRIALS))
    with TrialRuns(work / TRIALS, problem(config), run):
        found = run_trials(config, base, inputs, work)
    seconds, trained = time.monotonic() - began, _trained(found) - before
    summary = {"seconds": seconds, "cpus_busy": trained * base.needs["CPU"] / seconds}
    (output / "trials.json").write_text(json.dumps([asdict(r) for r in found], indent=1) + "\n")
    (output / "search.json").write_text(json.dumps(summary, indent=1) + "\n")
    _keep_rows(work / TRIALS, output)
    states = [record.state for record in found]
    counts = {f"trials/{state}": float(states.count(state)) for state in sorted(set(states))}
    run.log_metrics({f"search/{name}": value for name, value in summary.items()} | counts)
    run.log_artifacts(output / "trials.json")


def _trained(found: Sequence[records.Record]) -> float:
    """Returns how long trials have trained, in seconds."""
    return sum(record.seconds for record in found)


def _keep_rows(root: Path, output: Path) -> None:
    (output / "rows").mkdir()
    for record in records.read(root):
        path = records.folder(root, record.number) / metrics_log.FILE
        if path.exists():
            shutil.copy(path, output / "rows" / f"{record.number:03d}.jsonl")
