"""A trial of a search: its training, which reports to Ray Tune, its MLflow run and its outcome."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import optuna
from mlflow.exceptions import MlflowException
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import TuneReportCallback

from ebflow.errors import BadInput, NonFinite
from pipelines import metrics_log, store
from pipelines.config import DensityConfig, Training
from pipelines.config.section import changes
from pipelines.data.dataset import Dataset
from pipelines.errors import failure
from pipelines.store.files import write_json
from pipelines.tracking.reporter import Reporter
from pipelines.tracking.run import StageRun
from pipelines.training.loop import fit
from pipelines.training.preprocessing import PREPROCESSING, fit_preprocessing
from tuning.config import SearchConfig, TuneConfig
from tuning.space import Suggest, space

FILE = "trials.json"
"""Name of the file that has the outcomes of all trials."""

TRIALS = "trials"
"""Folder of the trials' checkpoints, in that of the search's work."""

DEFAULT = 0
"""The number of the trial that is the default itself."""

OWN = ("number", "training")
"""Names in a trial's ``config`` in Ray Tune that are no parameters of the space."""

FINISHED, PRUNED, STOPPED, FAILED = "finished", "pruned", "stopped", "failed"

START = {"nll": math.inf, "step": 0, "seconds": 0.0, "share": 0.0, "reason": ""}
"""The first report of a trial to Ray Tune."""

STATUS = {FINISHED: "FINISHED", PRUNED: "KILLED", STOPPED: "KILLED", FAILED: "FAILED"}
"""The status of a trial's MLflow run, by its state."""


def propose(trial: optuna.Trial, base: Training, search: SearchConfig) -> dict[str, Any]:
    """Returns the number and the training of a trial; Ray Tune adds the parameters."""
    training = space(Suggest(base, trial), search)
    return {"number": trial.number, "training": training.model_dump(mode="json")}


def train(proposal: Mapping[str, Any], *, data: Path, work: Path, search: StageRun) -> None:
    """Trains the flow that was proposed, and reports to Ray Tune after every validation.

    A trial that diverges reports an infinite NLL, so that Optuna proposes no more like it. Other
    errors are raised, and Ray Tune starts the trial again from its last checkpoint in ``work``.
    MLflow gets what it lacks of the curve when the trial has ended, from the search.
    """
    training = Training.model_validate(proposal["training"])
    trial_id, alone = tune.get_context().get_trial_id(), training.cluster.workers == 1
    folder = work / trial_id
    folder.mkdir(parents=True, exist_ok=True)
    listener = Listener(tune.report if alone else _from_controller())
    tune.report(START)
    run = None
    with suppress(MlflowException):  # if MLflow is away, it gets the curve at the trial's end
        run = find(search, trial_id)
    reporter = Reporter(folder / metrics_log.FILE, run, listener=listener)
    listener(metrics_log.read(reporter.file))
    try:
        data = store.ensure_local(data)
        fit_preprocessing(training.preprocess_fit, Dataset(data)).save(folder / PREPROCESSING)
        store.upload(folder / PREPROCESSING)
        fit(training.without_retry, data, folder / PREPROCESSING, folder, reporter, here=alone)
    except (BadInput, NonFinite) as error:
        # Without a share done, ASHA compares the trial with no other.
        failed = {"nll": math.inf, "share": 0.0, "reason": str(failure(error))}
        tune.report(listener.last | failed)
    finally:
        store.evict(folder)  # of a node that has a bucket


class Listener:
    """Reports to Ray Tune after validations: the least NLL, step, seconds and share so far."""

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        self.report, self.last = report, START

    def __call__(self, rows: Sequence[metrics_log.Row]) -> None:
        for row in rows:
            if row["kind"] == "validate":
                metrics = row["metrics"]
                self.last = {
                    **START,
                    "nll": min(self.last["nll"], metrics["val/nll"]),
                    "step": row["step"],
                    "seconds": metrics["time/train_s"],
                    "share": row["share"],
                }
                self.report(self.last)


def _from_controller() -> Callable[[dict[str, Any]], None]:
    """Returns a function that reports to Ray Tune from Ray Train's controller."""
    callback = TuneReportCallback()
    return lambda metrics: callback.after_report(None, [metrics], None)


def find(search: StageRun, trial_id: str) -> StageRun | None:
    """Returns the MLflow run of a trial of a search, which may have been interrupted since."""
    experiment = search.client.get_run(search.id).info.experiment_id
    runs = search.client.search_runs([experiment], f"tags.`ebflow.trial_id` = '{trial_id}'")
    return StageRun(search.client, runs[0].info.run_id) if runs else None


class TrialRuns(tune.Callback):
    """Starts and ends the run of each trial, and shows how far the search is.

    ``Tuner.restore`` unpickles its callbacks. So everything that belongs to this process, and not
    to the experiment, is an attribute of the class.

    Attributes:
        search: The run of the search.
        config: Its configuration.
        outcomes: The outcomes of the trials that have started, at the end of the search.
    """

    search: ClassVar[StageRun]
    config: ClassVar[TuneConfig]
    outcomes: ClassVar[list["Outcome"]]

    def on_trial_start(self, trial: Trial, **_: object) -> None:
        """Creates the run of a trial, or resumes it."""
        run = find(self.search, trial.trial_id) or self._create(trial)
        run.client.update_run(run.id, "RUNNING")

    def on_trial_result(self, trials: Sequence[Trial], **_: object) -> None:
        """Shows how far the search is."""
        ended = sum(trial.is_finished() for trial in trials)
        running = [trial.last_result for trial in trials if not trial.is_finished()]
        done = ended + sum(result.get("share", 0.0) for result in running)
        best = min(trial.last_result.get("nll", math.inf) for trial in trials)
        leader = f", best {best:.2f}" if math.isfinite(best) else ""
        count = self.config.search.trials
        self.search.reporter.progress(done / count, f"{ended} of {count} trials{leader}")

    def on_trial_complete(self, trial: Trial, **_: object) -> None:
        """Ends the run of a trial that has finished or was stopped early."""
        with suppress(MlflowException):  # Ray Tune would count the trial as failed
            self._end(trial)

    def on_trial_error(self, trial: Trial, **_: object) -> None:
        """Ends the run of a trial that has failed too often."""
        self.on_trial_complete(trial)

    def on_experiment_end(self, trials: Sequence[Trial], **_: object) -> None:
        """Ends the runs of all trials: those that failed, or ran until the time was up, too."""
        for trial in trials:
            self._end(trial)
        started = [one for one in trials if one.status == Trial.ERROR or "nll" in one.last_result]
        TrialRuns.outcomes = [outcome(self.config.start, trial) for trial in started]

    def _create(self, trial: Trial) -> StageRun:
        number, fields = trial.config["number"], trial.config["training"]
        training = Training.model_validate(fields)
        name = f"trial {number:03d} {training.short_loss}{'' if number else ' default'}"
        tags = {"ebflow.trial": str(number), "ebflow.trial_id": trial.trial_id}
        run = self.search.child(name, tags)
        run.log_params(fields)
        run.describe(f"Trial {number} of a search: {training.method}.")
        return run

    def _end(self, trial: Trial) -> None:
        run = find(self.search, trial.trial_id)
        if run is None:  # the trial has never started
            return
        ended = outcome(self.config.start, trial)
        # A trial does not wait for MLflow, which may be away when it ends.
        file = self.search.work / TRIALS / trial.trial_id / metrics_log.FILE
        store.download(file)
        run.complete(metrics_log.read(file))
        run.set_tags(
            {
                "mlflow.parentRunId": self.search.id,  # this attempt of the search
                "ebflow.state": ended.state,
                "ebflow.done": f"{ended.share:.0%}",
                **({"ebflow.error": ended.reason} if ended.reason else {}),
            }
        )
        run.log_metrics({"trial/nll": ended.nll, "trial/seconds": ended.seconds})
        run.client.set_terminated(run.id, STATUS[ended.state])


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
        number: Its number; 0 is the default.
        state: ``finished``; ``pruned``: stopped early, because others were better; ``stopped``:
            the time was up; ``failed``.
        nll: The least NLL of the validation rows so far, in nats; None without a validation.
        step: Optimizer steps done.
        seconds: Training time (s).
        share: Share of the training that is done.
        reason: Why it failed.
        changes: The options in which it differs from the default.
        params: The parameters of the search space and their values.
        training: Its configuration.
    """

    number: int
    state: str
    nll: float | None
    step: int
    seconds: float
    share: float
    reason: str
    changes: dict[str, Any]
    params: dict[str, Any]
    training: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the trial in tables."""
        return "default" if self.number == DEFAULT else f"trial {self.number}"


def outcome(base: Training, trial: Trial) -> Outcome:
    """Returns the outcome of a trial of Ray Tune; ``base`` is the training of the default."""
    last = {**START, **trial.last_result}
    error = trial.get_pickled_error() if trial.status == Trial.ERROR else None
    reason = last["reason"] if error is None else str(failure(error))
    return Outcome(
        number=trial.config["number"],
        state=FAILED if reason else _state(last),
        nll=last["nll"] if math.isfinite(last["nll"]) else None,
        step=last["step"],
        seconds=last["seconds"],
        share=last["share"],
        reason=reason,
        changes=changes(base, Training.model_validate(trial.config["training"])),
        params={name: value for name, value in trial.config.items() if name not in OWN},
        training=trial.config["training"],
    )


def _state(last: Mapping[str, Any]) -> str:
    if not last.get("done"):
        return STOPPED
    return FINISHED if last["share"] >= 1 else PRUNED


def save(folder: Path, trials: Sequence[Outcome]) -> None:
    """Writes the outcomes of a search."""
    write_json(folder / FILE, [asdict(trial) for trial in trials])


def load(folder: Path) -> list[Outcome]:
    """Returns the outcomes of a search, by their numbers."""
    return [Outcome(**fields) for fields in json.loads((folder / FILE).read_text())]


def trainings(config: TuneConfig, trials: Sequence[Outcome]) -> dict[tuple[int, int], Training]:
    """Returns the trainings after the search, by the number of a trial and a fresh seed."""
    finished = [trial for trial in trials if trial.state == FINISHED and trial.number != DEFAULT]
    best = sorted(finished, key=lambda trial: (trial.nll, trial.number))[: config.search.top]
    chosen = {DEFAULT: config.base.training}
    chosen |= {trial.number: retraining(config.base, trial) for trial in best}
    first = config.base.seed + 1
    return {
        (number, seed): training.changed(seed=seed).without_retry
        for number, training in chosen.items()
        for seed in range(first, first + config.search.seeds)
    }


def retraining(base: DensityConfig, trial: Outcome) -> Training:
    """Returns the training of a trial, validated as often as the user's own."""
    training = Training.model_validate(trial.training)
    return training.changed(train={"validate_every": base.train.validate_every})
