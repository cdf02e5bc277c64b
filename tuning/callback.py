"""Writes down what becomes of trials, as Ray Tune tells it: records, and the search's progress."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from pipelines import store
from pipelines.training import metrics_log
from tuning import records
from tuning.goals import Goal
from tuning.records import Record

KILLED, FAILURE = "killed", "failure"
"""The keys of a report by which a trial tells the rule that ends it, or why it cannot go on."""


class TrialRecorder(Callback):
    """Keeps the records of all trials; runs in the process of the search.

    Arguments:
        root: Folder of the trials.
        progress: File of rows for the terminal.
        trials: How many there will be.
        goals: What is wanted of them.
        ended: Called when a trial has ended well.
    """

    def __init__(
        self,
        root: Path,
        progress: Path,
        trials: int,
        goals: Sequence[Goal],
        ended: Callable[[], None],
    ) -> None:
        self.root, self.progress, self.trials = root, progress, trials
        self.goals, self.ended = goals, ended
        self.records = {record.number: record for record in records.read(root)}

    def on_trial_start(self, trial: Trial, **_: object) -> None:
        """Records a trial that starts, or goes on; clears what another of its number left."""
        record = _proposed(trial)
        before = self.records.get(record.number)
        if before is not None and before.config != record.config:
            store.forget(records.folder(self.root, record.number))
        records.begin(self.root, record.number)
        self._keep(record)

    def on_trial_result(self, trial: Trial, result: dict[str, Any], **_: object) -> None:
        """Records how far a trial is, or the rule that ends it."""
        self._update(trial, **self._standing(result))

    def on_trial_complete(self, trial: Trial, **_: object) -> None:
        """Records the end of a trial, and why it came."""
        self._update(trial, **self._standing(trial.last_result))
        record = self.records[trial.config["number"]]
        whole = record.share >= 1 and not record.reason
        state = records.FINISHED if whole else records.PRUNED
        self._update(trial, state=records.FAILED if FAILURE in trial.last_result else state)
        self.ended()

    def on_trial_error(self, trial: Trial, **_: object) -> None:
        """Records a failure and its reason."""
        reason = records.reason(self.root, trial.config["number"])
        self._update(trial, state=records.FAILED, reason=reason)

    def on_experiment_end(self, **_: object) -> None:
        """Records what still ran when the search's time was up."""
        for record in list(self.records.values()):
            if record.state == records.RUNNING:
                self._keep(replace(record, state=records.STOPPED))

    def tell(self, note: str) -> None:
        """Tells the user something, beside how far the search is."""
        metrics_log.append(self.progress, [{**self._row(), "note": note}])

    def _update(self, trial: Trial, **changed: Any) -> None:  # noqa: ANN401
        """Records a change; one that is lost with its node may be told of before it starts."""
        before = self.records.get(trial.config["number"]) or _proposed(trial)
        self._keep(replace(before, **changed))

    def _keep(self, record: Record) -> None:
        self.records[record.number] = record
        records.write(self.root, record)
        metrics_log.append(self.progress, [self._row()])

    def _row(self) -> metrics_log.Row:
        found = self.records.values()
        ended = sum(record.state != records.RUNNING for record in found)
        running = sum(record.share for record in found if record.state == records.RUNNING)
        goal = self.goals[0]
        best = min((record.values for record in found if record.scores), key=goal.of, default=None)
        leader = "" if best is None else f", best {goal.formatted(best[goal.name])}"
        return {
            "kind": "search",
            "share": (ended + running) / self.trials,
            "time": time.time(),
            "metrics": {},
            "text": f"{ended} of {self.trials} trials{leader}",
        }

    def _standing(self, result: dict[str, Any]) -> dict[str, Any]:
        """Returns what a trial reported last; nothing has been if it was stopped at once."""
        for ended in (KILLED, FAILURE):
            if ended in result:
                return {"reason": result[ended]}
        names = [goal.name for goal in self.goals if goal.held]
        progress = {name: result.get(name, 0) for name in ("step", "seconds", "share")}
        return progress | {"scores": {name: result[name] for name in names if name in result}}


def _proposed(trial: Trial) -> Record:
    """Returns the record of a trial that has done nothing yet."""
    names = ("number", "config", "changes", "params")
    return Record(**{name: trial.config[name] for name in names})
