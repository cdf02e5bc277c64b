"""Writes down what becomes of trials, as Ray Tune tells it: records, and the search's progress."""

__all__ = ["Chronicle"]

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from pipelines import rows
from pipelines.faults import failure
from tuning import records
from tuning.records import Record


class Chronicle(Callback):
    """Keeps the records of all trials; runs in the process of the search.

    Arguments:
        root: Folder of the trials.
        progress: File of rows for the terminal.
        trials: How many there will be.
        deadline: When the search's time is up (seconds since 1970).
        ended: Called when a trial has ended well.
    """

    def __init__(
        self,
        root: Path,
        progress: Path,
        trials: int,
        deadline: float,
        ended: Callable[[], None],
    ) -> None:
        self.root, self.progress, self.trials = root, progress, trials
        self.deadline, self.ended = deadline, ended
        self.records = {record.number: record for record in records.read(root)}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:  # noqa: ANN401
        """Records a trial that starts, or goes on; clears what another of its number left."""
        names = ("number", "config", "changes", "params")
        record = Record(**{name: trial.config[name] for name in names})
        before = self.records.get(record.number)
        if before is not None and before.config != record.config:
            shutil.rmtree(records.folder(self.root, record.number))
        self._keep(record)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **_: Any,  # noqa: ANN401
    ) -> None:
        """Records how far a trial is."""
        self._update(trial, **_standing(result))

    def on_trial_complete(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """Records the end of a trial, and why it came."""
        early = records.STOPPED if time.time() >= self.deadline else records.PRUNED
        standing = _standing(trial.last_result)
        done = standing["share"] >= 1
        self._update(trial, **standing, state=records.FINISHED if done else early)
        self.ended()

    def on_trial_error(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """Records a failure and its reason."""
        self._update(trial, state=records.FAILED, reason=str(failure(trial.get_error())))

    def _update(self, trial: Trial, **changed: Any) -> None:  # noqa: ANN401
        self._keep(replace(self.records[trial.config["number"]], **changed))

    def _keep(self, record: Record) -> None:
        self.records[record.number] = record
        records.write(self.root, record)
        rows.append(self.progress, [self._row()])

    def _row(self) -> rows.Row:
        found = self.records.values()
        ended = sum(record.state != records.RUNNING for record in found)
        running = sum(record.share for record in found if record.state == records.RUNNING)
        best = min((record.nll for record in found if record.nll is not None), default=None)
        told = "" if best is None else f", best {best:.1f}"
        return {
            "kind": "search",
            "share": (ended + running) / self.trials,
            "time": time.time(),
            "metrics": {},
            "text": f"{ended} of {self.trials} trials{told}",
        }


def _standing(result: dict[str, Any]) -> dict[str, Any]:
    """Returns what a trial reported last; nothing has been if it was stopped at once."""
    return {name: result.get(name, 0) for name in ("step", "seconds", "share")} | {
        "nll": result.get("nll")
    }
