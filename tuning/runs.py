"""MLflow runs of trials, below the run of their search."""

import math
from collections.abc import Sequence
from typing import ClassVar

from ray import tune
from ray.tune.experiment import Trial

from pipelines.config import Training
from pipelines.tracking import metrics_log
from pipelines.tracking.notes import NOTE, note
from pipelines.tracking.run import StageRun
from tuning.trials import FAILED, FINISHED, PRUNED, STOPPED, TRIALS, explain, find, outcome

STATUS = {FINISHED: "FINISHED", PRUNED: "KILLED", STOPPED: "KILLED", FAILED: "FAILED"}


class TrialRuns(tune.Callback):
    """Starts and ends the run of each trial, and shows how far the search is.

    ``Tuner.restore`` unpickles its callbacks. So everything that belongs to this process, and not
    to the experiment, is an attribute of the class.

    Attributes:
        search: The run of the search.
        base: The training of the default.
    """

    search: ClassVar[StageRun]
    base: ClassVar[Training]

    def setup(self, *, total_num_samples: int, **_: object) -> None:
        """Notes the number of trials."""
        self.count = total_num_samples

    def on_trial_start(self, trial: Trial, **_: object) -> None:
        """Creates the run of a trial, or resumes it."""
        run = find(self.search, trial.trial_id) or self._create(trial)
        self.search.adopt(run.id)
        run.begin()

    def on_trial_result(self, trials: Sequence[Trial], **_: object) -> None:
        """Shows how far the search is."""
        ended = [trial for trial in trials if trial.is_finished()]
        running = [trial.last_result for trial in trials if not trial.is_finished()]
        done = len(ended) + sum(result.get("share", 0.0) for result in running)
        best = min(trial.last_result.get("nll", math.inf) for trial in trials)
        leader = f", best {best:.2f}" if math.isfinite(best) else ""
        text = f"{len(ended)} of {self.count} trials{leader}"
        self.search.reporter.progress(done / self.count, text)

    def on_trial_complete(self, trial: Trial, **_: object) -> None:
        """Ends the run of a trial that has finished or was stopped early."""
        self._end(trial)

    def on_trial_error(self, trial: Trial, **_: object) -> None:
        """Ends the run of a trial that has failed; its error is stored only later."""
        if run := find(self.search, trial.trial_id):  # None: its node was lost before it started
            run.end("FAILED")

    def on_experiment_end(self, trials: Sequence[Trial], **_: object) -> None:
        """Ends the runs of all trials: those that still ran when the time was up, too."""
        for trial in trials:
            self._end(trial)

    def _create(self, trial: Trial) -> StageRun:
        number, fields = trial.config["number"], trial.config["training"]
        training = Training.model_validate(fields)
        name = f"trial {number:03d} {training.short_loss}{'' if number else ' default'}"
        tags = {"ebflow.trial": str(number), "ebflow.trial_id": trial.trial_id}
        run = self.search.child(name, tags)
        run.log_params(fields)
        run.set_tags({NOTE: note(f"Trial {number} of a search: {training.method}.", "")})
        return run

    def _end(self, trial: Trial) -> None:
        run = find(self.search, trial.trial_id)
        if run is None:  # the trial has never started
            return
        error = explain(trial.get_pickled_error()) if trial.status == Trial.ERROR else ""
        ended = outcome(self.base, trial.config, trial.last_result, error)
        # A trial that Ray Tune stops may end before its last metrics are sent.
        file = self.search.work / TRIALS / trial.trial_id / metrics_log.FILE
        run.complete(metrics_log.standing(metrics_log.read(file)))
        tags = {"ebflow.state": ended.state, "ebflow.done": f"{ended.share:.0%}"}
        run.set_tags(tags | ({"ebflow.error": ended.reason} if ended.reason else {}))
        run.log_metrics({"trial/nll": ended.nll, "trial/seconds": ended.seconds})
        self.search.adopt(run.id)
        run.end(STATUS[ended.state])
