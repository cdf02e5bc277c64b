"""The search problem of the density pipeline."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from pipelines import store
from pipelines.cluster.connection import DRIVER
from pipelines.config import DensityConfig, Training
from pipelines.config.source import held_out
from pipelines.data.dataset import Dataset
from pipelines.density.checks import check
from pipelines.density.graph import evaluate, prepare, preprocess, train
from pipelines.engine import Artefact, Source
from pipelines.engine.demand import Needs, own
from pipelines.reporting.method import method, short_loss
from pipelines.tracking import metrics_log
from pipelines.tracking.reporter import Reporter
from pipelines.training.loop import fit
from pipelines.training.preprocessing import CHAIN, fitted
from tuning.density.space import space
from tuning.problem import Goal, Problem
from tuning.suggest import Space

NLL = Goal("nll", "NLL", "nats", float("inf"))


class DensityProblem(Problem):
    """Trainings of a flow of less NLL."""

    pipeline, goals = "density", (NLL,)
    before, after = (prepare,), (preprocess, train, evaluate)
    smaller = "lower train.threads or cluster.workers, or set cluster.gpu False"
    about = "NLL is in nats an example, in units of the raw data;"
    method, label = staticmethod(method), staticmethod(short_loss)

    @property
    def space(self) -> Space:
        return space(self.search)

    @property
    def seeds(self) -> int:
        return self.search.seeds

    @cached_property
    def base(self) -> Training:
        """The pipeline's training, validated often enough to be stopped early."""
        often, own = self.search.validate_every, self.whole.train.validate_every
        return self.whole.training.changed(train={"validate_every": min(often or own, own)})

    def check(self) -> tuple[Source, DensityConfig]:
        found = held_out(self.whole)
        return check(found), found

    def train(self, trial: Training, inputs: Sequence[Path], folder: Path) -> None:
        """Trains; of goals ``nll``, the least so far, in nats.

        One worker trains in this process; several are launched by Ray Train.
        """
        data, chain, here = inputs[0], folder / CHAIN, trial.cluster.workers == 1
        fitted(trial.chain, Dataset(data)).save(chain)
        store.upload(chain)
        listener = relay(tune.report if here else _handed_on())
        reporter = Reporter(folder / metrics_log.FILE, listener=listener)
        listener(metrics_log.read(reporter.file))
        fit(trial.once, data, chain, folder, reporter, here=here)

    @property
    def needs(self) -> Needs:
        """What a trainer needs in its own process, or a driver of workers."""
        return DRIVER if self.base.cluster.workers > 1 else own(self.base)

    def inputs(self, source: Source) -> tuple[Artefact, ...]:
        return (prepare(self.whole.data, [source]),)

    def measured(
        self, trial: Training, title: str, given: Sequence[Artefact]
    ) -> tuple[Artefact, ...]:
        before = [*given, preprocess(trial.chain, given)]
        trained = train(self._as_whole(trial).once, before, title)
        return trained, evaluate(self.whole.evaluate, [*before, trained], title)

    def scores(self, folders: Sequence[Path]) -> Mapping[str, Mapping[str, float]]:
        evaluation = json.loads((folders[1] / "evaluation.json").read_text())
        return {split: {"nll": evaluation[f"{split}/nll"]} for split in ("select", "test")}

    def settled(self, trial: Training) -> DensityConfig:
        kept = set(Training.model_fields) - {"seed", "cluster"}
        found = self._as_whole(trial)
        return self.whole.changed(**{name: getattr(found, name) for name in kept})

    def _as_whole(self, trial: Training) -> Training:
        """Returns a trial's configuration, validated as often as the pipeline's."""
        return trial.changed(train={"validate_every": self.whole.train.validate_every})


def _handed_on() -> Callable[[dict[str, Any]], None]:
    """Returns what reports to Tune from Ray Train's controller."""
    callback = TuneReportCallback()
    return lambda standing: callback.after_report(None, [standing], None)


def relay(report: Callable[[dict[str, Any]], None]) -> Callable[[Sequence[metrics_log.Row]], None]:
    """Returns what reports to Tune how a training stands after a validation.

    Arguments:
        report: Reports ``nll``, ``step``, ``seconds`` and ``share``.
    """
    known = [float("inf")]

    def listener(rows: Sequence[metrics_log.Row]) -> None:
        validations = [row for row in rows if row["kind"] == "validate"]
        if not validations:
            return
        known.extend(row["metrics"]["val/nll"] for row in validations)
        last, seconds = validations[-1], validations[-1]["metrics"]["time/train_s"]
        standing = {"step": last["step"], "seconds": seconds, "share": last["share"]}
        report({"nll": min(known), **standing})

    return listener
