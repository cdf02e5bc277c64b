"""Writes down what becomes of trials, as Ray Tune tells it: records, and the search's progress."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from pipelines import store
from pipelines.tracking.reporter import Reporter
from tuning import records
from tuning.problem import Goal
from tuning.records import Record

KILLED, FAILURE = "killed", "failure"
"""The keys of a report by which a trial tells the rule that ends it, or why it cannot go on."""


class TrialRecorder(Callback):
    """Keeps the records of all trials; runs in the process of the search.

    Arguments:
        work: Where the trials' folders are.
        reporter: Shows how far the search is.
        trials: How many there will be.
        goals: What is wanted of them.
        ended: Called when a trial has ended well.
    """

    def __init__(
        self,
        work: Path,
        reporter: Reporter,
        trials: int,
        goals: Sequence[Goal],
        ended: Callable[[], None],
    ) -> None:
        self.root, self.reporter = work / records.TRIALS, reporter
        self.trials, self.goals, self.ended = trials, goals, ended
        self.records = {record.number: record for record in records.read(self.root)}

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
        self._keep(self._standing(trial, result))

    def on_trial_complete(self, trial: Trial, **_: object) -> None:
        """Records the end of a trial, and why it came."""
        record = self._standing(trial, trial.last_result)
        state = records.PRUNED if record.share < 1 or record.reason else records.FINISHED
        state = records.FAILED if FAILURE in trial.last_result else state
        self._keep(replace(record, state=state))
        self.ended()

    def on_trial_error(self, trial: Trial, **_: object) -> None:
        """Records a failure and its reason."""
        reason = records.reason(self.root, trial.config["number"])
        self._keep(replace(self._known(trial), state=records.FAILED, reason=reason))

    def on_experiment_end(self, **_: object) -> None:
        """Records what still ran when the search's time was up."""
        for record in list(self.records.values()):
            if record.state == records.RUNNING:
                self._keep(replace(record, state=records.STOPPED))

    def tell(self, note: str) -> None:
        """Tells the user something, beside how far the search is."""
        self._report(note)

    def _known(self, trial: Trial) -> Record:
        """Returns a trial's record; one that is lost with its node may never have started."""
        return self.records.get(trial.config["number"]) or _proposed(trial)

    def _keep(self, record: Record) -> None:
        self.records[record.number] = record
        records.write(self.root, record)
        self._report()

    def _report(self, note: str = "") -> None:
        found = self.records.values()
        ended = sum(record.state != records.RUNNING for record in found)
        running = sum(record.share for record in found if record.state == records.RUNNING)
        goal = self.goals[0]
        best = min((record.scores for record in found if record.scores), key=goal.of, default=None)
        leader = "" if best is None else f", best {goal.formatted(best[goal.name])}"
        text = f"{ended} of {self.trials} trials{leader}"
        self.reporter.progress((ended + running) / self.trials, text, note)

    def _standing(self, trial: Trial, result: dict[str, Any]) -> Record:
        """Returns the record with what was reported last: nothing, if it was stopped at once."""
        known = self._known(trial)
        for ended in (KILLED, FAILURE):
            if ended in result:
                return replace(known, reason=result[ended])
        progress = {name: result.get(name, 0) for name in ("step", "seconds", "share")}
        names = [goal.name for goal in self.goals if goal.name in result]
        return replace(known, **progress, scores={name: result[name] for name in names})


def _proposed(trial: Trial) -> Record:
    """Returns the record of a trial that has done nothing; Tune knows its parameters, too."""
    names = ("number", "config", "changes", "params")
    return Record(**{name: trial.config[name] for name in names})
