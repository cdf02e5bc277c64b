"""A trial of a search: its training, which reports to Ray Tune, and its outcome."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from ebflow.errors import BadInput, NonFinite
from pipelines import store
from pipelines.config import Training
from pipelines.config.section import changes
from pipelines.data.dataset import Dataset
from pipelines.errors import failure
from pipelines.store.files import write_json
from pipelines.tracking import metrics_log
from pipelines.tracking.reporter import Reporter
from pipelines.tracking.run import StageRun
from pipelines.training.loop import fit
from pipelines.training.preprocessing import CHAIN, fitted
from tuning.config import SearchConfig
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

Report = Callable[[dict[str, Any]], None]
"""Reports ``nll`` (the least so far), ``step``, ``seconds`` and ``share`` to Ray Tune."""


def propose(trial: optuna.Trial, base: Training, search: SearchConfig) -> dict[str, Any]:
    """Returns the number and the training of a trial; Ray Tune adds the parameters."""
    training = space(Suggest(trial), base, search)
    return {"number": trial.number, "training": training.model_dump(mode="json")}


def train(proposal: Mapping[str, Any], *, data: Path, work: Path, search: StageRun) -> None:
    """Trains the flow that was proposed, and reports to Ray Tune after every validation.

    A trial that diverges reports an infinite NLL, so that Optuna proposes no more like it. Other
    errors are raised, and Ray Tune starts the trial again from its last checkpoint in ``work``.
    """
    training = Training.model_validate(proposal["training"])
    trial_id, one = tune.get_context().get_trial_id(), training.cluster.workers == 1
    folder = work / trial_id
    folder.mkdir(parents=True, exist_ok=True)
    tune.report({"nll": math.inf, "step": 0, "seconds": 0.0, "share": 0.0})
    listener = Listener(tune.report if one else _from_controller())
    reporter = Reporter(folder / metrics_log.FILE, find(search, trial_id), listener=listener)
    listener(metrics_log.read(reporter.file))
    try:
        data = store.ensure_local(data)
        fitted(training.chain, Dataset(data)).save(folder / CHAIN)
        store.upload(folder / CHAIN)
        fit(training.once, data, folder / CHAIN, folder, reporter, here=one)
    except (BadInput, NonFinite) as error:
        tune.report({"nll": math.inf, "share": 0.0, "reason": str(failure(error))})


def find(search: StageRun, trial_id: str) -> StageRun | None:
    """Returns the MLflow run of a trial of a search, which may have been interrupted since."""
    experiment = search.client.get_run(search.id).info.experiment_id
    runs = search.client.search_runs([experiment], f"tags.`ebflow.trial_id` = '{trial_id}'")
    return StageRun(search.client, runs[0].info.run_id) if runs else None


def _from_controller() -> Report:
    """Returns a function that reports to Ray Tune from Ray Train's controller."""
    callback = TuneReportCallback()
    return lambda metrics: callback.after_report(None, [metrics], None)


class Listener:
    """Reports to Ray Tune after validations."""

    def __init__(self, report: Report) -> None:
        self.report, self.best = report, math.inf

    def __call__(self, rows: Sequence[metrics_log.Row]) -> None:
        for row in rows:
            if row["kind"] == "validate":
                self.best = min(self.best, row["metrics"]["val/nll"])
                seconds = row["metrics"]["time/train_s"]
                progress = {"step": row["step"], "seconds": seconds, "share": row["share"]}
                self.report({"nll": self.best, **progress})


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


def outcome(
    base: Training, config: Mapping[str, Any], metrics: Mapping[str, Any], reason: str
) -> Outcome:
    """Returns the outcome of a trial, from its ``config`` in Ray Tune and its last report."""
    params = {name: value for name, value in config.items() if name not in OWN}
    reason, nll = reason or metrics.get("reason", ""), metrics.get("nll", math.inf)
    return Outcome(
        number=config["number"],
        state=_state(metrics, failed=bool(reason)),
        nll=nll if math.isfinite(nll) else None,
        step=metrics.get("step", 0),
        seconds=metrics.get("seconds", 0.0),
        share=metrics.get("share", 0.0),
        reason=reason,
        changes=changes(base, Training.model_validate(config["training"])),
        params=params,
        training=config["training"],
    )


def _state(metrics: Mapping[str, Any], *, failed: bool) -> str:
    if failed:
        return FAILED
    if not metrics.get("done"):
        return STOPPED
    return FINISHED if metrics.get("share", 0.0) >= 1 else PRUNED


def explain(error: BaseException | None) -> str:
    """Returns why a trial failed, in one line; empty without an error."""
    return "" if error is None else str(failure(error))


def save(folder: Path, trials: Sequence[Outcome]) -> None:
    """Writes the outcomes of a search."""
    write_json(folder / FILE, [asdict(trial) for trial in trials])


def load(folder: Path) -> list[Outcome]:
    """Returns the outcomes of a search, by their numbers."""
    return [Outcome(**fields) for fields in json.loads((folder / FILE).read_text())]
