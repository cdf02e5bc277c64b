"""A trial of a search: its training, which reports to Ray Tune, its MLflow run and its outcome."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import optuna
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, TypeAdapter
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import TuneReportCallback

from ebflow.errors import BadInput, NonFinite
from pipelines import metrics_log, store
from pipelines.config import DensityConfig, Training
from pipelines.config.section import changes
from pipelines.data.dataset import Dataset
from pipelines.errors import failure
from pipelines.tracking.run import Reporter, StageRun
from pipelines.training.flow_training import fit
from pipelines.training.preprocessing import PREPROCESSING, fit_preprocessing
from tuning.config import SearchConfig, TuneConfig
from tuning.space import Suggest, space

FILE = "trials.json"  # Name of the file that has the outcomes of all trials
TRIALS = "trials"  # Folder of the trials' checkpoints, in that of the search's work
DEFAULT = 0  # The number of the trial that is the default itself

FINISHED, PRUNED, STOPPED, FAILED = "finished", "pruned", "stopped", "failed"

# The first report of a trial to Ray Tune.
START = {"nll": math.inf, "step": 0, "seconds": 0.0, "share": 0.0, "reason": ""}

# The status of a trial's MLflow run, by its state.
STATUS = {FINISHED: "FINISHED", PRUNED: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}


def propose(trial: optuna.Trial, base: Training, search: SearchConfig) -> dict[str, Any]:
    """Returns the number and the training of a trial, and the id of its new MLflow run.

    Ray Tune adds the parameters.
    """
    training = space(Suggest(base, trial), search)
    proposal = {"number": trial.number, "training": training.model_dump(mode="json")}
    return proposal if TrialRuns.search is None else {**proposal, "run": _new_run(proposal)}


def _new_run(proposal: Mapping[str, Any]) -> str:
    """Creates the MLflow run of a trial, below that of the search; returns its id."""
    number, training = proposal["number"], Training.model_validate(proposal["training"])
    name = f"trial {number:03d} {training.short_loss}{'' if number else ' default'}"
    run = TrialRuns.search.child(name, {"ebflow.trial": str(number)})
    run.log_params(proposal["training"])
    run.describe(f"Trial {number} of a search: {training.method}.")
    return run.id


def train(proposal: Mapping[str, Any], *, data: Path, work: Path, search: StageRun) -> None:
    """Trains the flow that was proposed, and reports to Ray Tune after every validation.

    A trial that diverges reports an infinite NLL, so that Optuna proposes no more like it. Other
    errors are raised, and Ray Tune starts the trial again from its last checkpoint in ``work``.
    MLflow gets what it lacks of the curve when the trial has ended, from the search.
    """
    training = Training.model_validate(proposal["training"])
    trial_id, alone = tune.get_context().get_trial_id(), training.cluster.limits[1] == 1
    folder = work / trial_id
    folder.mkdir(parents=True, exist_ok=True)
    listener = Listener(tune.report if alone else _from_controller())
    tune.report(START)
    run = StageRun(search.client, proposal["run"])
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
        store.evict(folder)


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


class TrialRuns(tune.Callback):
    """Ends the run of each trial, and shows how far the search is.

    ``Tuner.restore`` unpickles its callbacks. So everything that belongs to this process, and not
    to the experiment, is an attribute of the class.
    """

    search: ClassVar[StageRun | None] = None  #: The run of the search; None outside of one
    config: ClassVar[TuneConfig]
    #: The outcomes of the trials that have started, at the end of the search
    outcomes: ClassVar[list["Outcome"]]

    def on_trial_start(self, trial: Trial, **_: object) -> None:
        """Resumes the run of a trial that was interrupted."""
        self.search.client.update_run(trial.config["run"], "RUNNING")

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
        """Ends the run of a trial that has finished, was stopped early or failed too often."""
        with suppress(MlflowException):  # Ray Tune would count the trial as failed
            self._end(trial)

    on_trial_error = on_trial_complete

    def on_experiment_end(self, trials: Sequence[Trial], **_: object) -> None:
        """Ends the runs of all trials: those that failed, or ran until the time was up, too."""
        for trial in trials:
            self._end(trial)
        started = [one for one in trials if one.status == Trial.ERROR or "nll" in one.last_result]
        TrialRuns.outcomes = [outcome(self.config.start, trial) for trial in started]

    def _end(self, trial: Trial) -> None:
        run = StageRun(self.search.client, trial.config["run"])
        ended = outcome(self.config.start, trial)
        # A trial does not wait for MLflow, which may be away when it ends.
        file = self.search.work / TRIALS / trial.trial_id / metrics_log.FILE
        store.download(file)
        # MLflow may have the last rows of a stopped trial, which the file on another node lacks.
        run.complete(metrics_log.read(file), renew=False)
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


class Outcome(BaseModel, frozen=True):
    """The outcome of a trial."""

    number: int  #: Its number; 0 is the default
    #: ``finished``; ``pruned``: stopped early, because others were better; ``stopped``: the time
    #: was up; ``failed``
    state: str
    #: The least NLL of the validation rows so far, in nats; None without a validation
    nll: float | None
    step: int
    seconds: float  #: Training time (s)
    share: float  #: Share of the training that is done
    reason: str
    changes: dict[str, Any]  #: The options in which it differs from the default
    params: dict[str, Any]  #: The parameters of the search space and their values
    training: Training

    @property
    def name(self) -> str:
        """The name of the trial in tables."""
        return "default" if self.number == DEFAULT else f"trial {self.number}"

    @property
    def difference(self) -> str:
        """The changes as text."""
        pairs = self.changes.items()
        return ", ".join(f"{k} {f'{v:.3g}' if isinstance(v, float) else v}" for k, v in pairs)


OUTCOMES = TypeAdapter(list[Outcome])


def outcome(base: Training, trial: Trial) -> Outcome:
    """Returns the outcome of a trial of Ray Tune; ``base`` is the training of the default."""
    last, config = {**START, **trial.last_result}, dict(trial.config)
    if trial.status == Trial.ERROR:
        last["reason"] = str(failure(trial.get_pickled_error()))
    state = STOPPED
    if last["reason"]:
        state = FAILED
    elif last.get("done"):
        state = FINISHED if last["share"] >= 1 else PRUNED
    config.pop("run", None)
    number, training = config.pop("number"), Training.model_validate(config.pop("training"))
    return Outcome(
        **{name: last[name] for name in ("step", "seconds", "share", "reason")},
        number=number,
        state=state,
        nll=last["nll"] if math.isfinite(last["nll"]) else None,
        changes=changes(base, training),
        params=config,
        training=training,
    )


def save(folder: Path, trials: list[Outcome]) -> None:
    """Writes the outcomes of a search."""
    (folder / FILE).write_bytes(OUTCOMES.dump_json(trials, indent=1))


def load(folder: Path) -> dict[int, Outcome]:
    """Returns the outcomes of a search, by their numbers."""
    return {one.number: one for one in OUTCOMES.validate_json((folder / FILE).read_bytes())}


def trainings(
    config: TuneConfig, trials: Mapping[int, Outcome]
) -> dict[tuple[int, int], Training]:
    """Returns the trainings after the search, by the number of a trial and a fresh seed."""
    finished = [one for n, one in trials.items() if one.state == FINISHED and n != DEFAULT]
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
    return trial.training.changed(train={"validate_every": base.train.validate_every})
