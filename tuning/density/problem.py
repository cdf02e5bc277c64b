"""The search problem of the density pipeline."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.cluster.connection import DRIVER
from pipelines.config import DensityConfig, Training
from pipelines.config.source import held_out
from pipelines.density.checks import check
from pipelines.density.graph import evaluate, prepare, preprocess, train
from pipelines.engine import Artefact, Source
from pipelines.engine.demand import Needs
from pipelines.reporting.method import method, short_loss
from tuning.density import space
from tuning.density.config import DensitySearch
from tuning.density.trial import train as train_trial
from tuning.goals import Goal
from tuning.problem import Problem
from tuning.suggest import Suggest

GOALS = {
    "nll": Goal("nll", "NLL", "nats", float("inf")),
    "seconds": Goal("seconds", "training time", "s", float("inf"), held=False),
}


class DensityProblem(Problem[DensitySearch, DensityConfig, Training]):
    """Trainings of a flow of less NLL, and perhaps of less time."""

    pipeline, searches, trains = "density", DensitySearch, Training
    before, after = (prepare,), (preprocess, train, evaluate)
    smaller = "lower train.threads or cluster.workers, or set cluster.gpu False"
    about = "NLL is in nats an example, in units of the raw data;"

    def check(self, whole: DensityConfig) -> tuple[Source, DensityConfig]:
        found = held_out(whole)
        return check(found), found

    def base(self, whole: DensityConfig) -> Training:
        """Returns the pipeline's training, validated often enough to be stopped early."""
        often, own = self.search.validate_every, whole.train.validate_every
        return whole.training.changed(train={"validate_every": min(often or own, own)})

    def goals(self, base: Training) -> tuple[Goal, ...]:
        return tuple(GOALS[name] for name in self.search.goals)

    def propose(self, ask: Suggest, base: Training) -> Training:
        return space.propose(ask, self.search, base)

    def train(self, trial: Training, inputs: Sequence[Path], folder: Path) -> None:
        train_trial(trial, inputs[0], folder)

    def needs(self, trial: Training) -> Needs:
        """Returns what a trainer needs in its own process, or a driver of workers."""
        return DRIVER if trial.cluster.workers > 1 else trial.needs

    def inputs(self, whole: DensityConfig, source: Source) -> tuple[Artefact, ...]:
        return (prepare(whole.data, [source]),)

    def measured(
        self, whole: DensityConfig, trial: Training, title: str, given: Sequence[Artefact]
    ) -> tuple[Artefact, ...]:
        before = [*given, preprocess(trial.chain, given)]
        trained = train(trial.once, before, title)
        return trained, evaluate(whole.evaluate, [*before, trained], title)

    def scores(self, folders: Sequence[Path]) -> Mapping[str, Mapping[str, float]]:
        evaluation = json.loads((folders[1] / "evaluation.json").read_text())
        return {split: {"nll": evaluation[f"{split}/nll"]} for split in ("select", "test")}

    def best(self, whole: DensityConfig, winner: Training) -> DensityConfig:
        found = self.again(whole, winner)
        kept = set(Training.model_fields) - {"seed", "cluster"}
        return whole.changed(**{name: getattr(found, name) for name in kept})

    def method(self, trial: Training) -> str:
        return method(trial)

    def label(self, trial: Training) -> str:
        return short_loss(trial)

    def again(self, whole: DensityConfig, trial: Training) -> Training:
        """Returns a trial's configuration, validated as often as the pipeline's."""
        return trial.changed(train={"validate_every": whole.train.validate_every})
