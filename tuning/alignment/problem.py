"""The search problem of the study of gradient alignment."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from ray import tune

from ebflow.errors import NonFinite
from pipelines import store
from pipelines.config.source import held_out
from pipelines.data.dataset import Dataset
from pipelines.density.graph import prepare
from pipelines.engine import Artefact, Source, Stage, own
from pipelines.gradient_alignment import fitting, graph
from pipelines.gradient_alignment.classifier_training import ClassifierTraining
from pipelines.gradient_alignment.config import AlignmentConfig, ClassifierConfig, CustomConfig
from pipelines.gradient_alignment.models import BASELINE, method, title
from pipelines.gradient_alignment.references import Held
from pipelines.gradient_alignment.scales import SCALES, models
from pipelines.training import metrics_log
from tuning.alignment.config import AlignmentSearch
from tuning.alignment.space import SPACE
from tuning.problem import Goal, Killed, Problem

score = Stage("tuning.stages.score", needs=own)

REPORTS = 20
"""Reports of a trial at most."""

SECONDS = "time/train_s"
"""The metric of the epochs of which there is a report."""

SEEDS = 3
"""Seeds of the trainings behind the search, if the study is not told how many."""

START = "score"
"""The model whose regularizer is the base's, if the study has none of the user's own."""


class AlignmentProblem(Problem):
    """Regularizers of a classifier that bring its gradients nearer to scores."""

    pipeline, space = "gradient-alignment", SPACE
    before, after = (prepare, graph.flow, graph.reference, graph.classify), (score,)
    smaller = "set gpu False, or choose a smaller scale"
    about = (
        "A3 is the mean cosine, at noisy rows, of the true class's logit-gradient less the mean "
        "over classes with the score of that class's reference flow less theirs; no shift of all "
        "logits moves it. Accuracy is that of clean rows;"
    )
    method, label = staticmethod(method), staticmethod(lambda trial: title(trial.regularizer))

    @cached_property
    def base(self) -> ClassifierConfig:
        """What has the user's own regularizer, or the recommended one."""
        return self._model(START if self.whole.custom.name == "none" else "custom")

    def _model(self, name: str) -> ClassifierConfig:
        study = self.whole.changed(models=(BASELINE, START))
        return next(model.classifier for model in models(study) if model.name == name)

    @property
    def goals(self) -> tuple[Goal, ...]:
        """A3, which is to be small with ``anti``, and accuracy.

        A3 and not A1, which a class-blind density on every logit raises though it changes no
        prediction: a search for A1 finds the regularizer that fits that density.
        """
        up, margin = self.base.regularizer.name != "anti", self.search.drop
        return (
            Goal("A3", "A3", "", -1.0 if up else 1.0, largest=up, digits=3),
            Goal("accuracy", "accuracy", "", 0.0, largest=True, digits=3, margin=margin),
        )

    @property
    def seeds(self) -> int:
        return self.whole.seeds or SEEDS

    def check(self) -> tuple[Source, AlignmentConfig]:
        """Returns the source, and the study with a reference a class and rows for selection."""
        found = held_out(self.whole.changed(reference={"conditional": True}))
        return graph.check(found), found

    def train(self, trial: ClassifierConfig, inputs: Sequence[Path], folder: Path) -> None:
        """Trains; its steps are epochs.

        Reports all that ``Held`` measures on the validation rows. A trial is killed if its trace
        passed its floor, or its accuracy stayed behind plain training.
        """
        torch.set_num_threads(trial.threads)
        data, reference, plain = inputs
        dataset, accuracies = Dataset(data), _accuracies(plain)
        held = Held(trial, dataset, reference, "validation")
        every = max(1, trial.epochs // REPORTS)

        def measure(training: ClassifierTraining) -> dict[str, float]:
            if training.step % every and training.step < trial.epochs:
                return {}
            found = held.measure(training.network)
            seconds = {SECONDS: training.clock.total("step")}
            return {f"val/{name}": value for name, value in found.items()} | seconds

        def tell(rows: list[metrics_log.Row]) -> None:
            if not rows or SECONDS not in rows[-1]["metrics"]:
                return
            epoch, share, metrics = (rows[-1][name] for name in ("step", "share", "metrics"))
            found = {n.removeprefix("val/"): v for n, v in metrics.items() if n.startswith("val/")}
            tune.report({**found, "step": epoch, "seconds": metrics[SECONDS], "share": share})
            diagnosis = fitting.collapse(trial, dataset.manifest, metrics)
            judge(self.search, share, diagnosis, metrics["val/accuracy"], accuracies[epoch - 1])

        store.download(folder / metrics_log.FILE)
        fitted = fitting.fit(trial, dataset, folder, watch=measure, listener=tell)
        if fitted.diverged:
            raise NonFinite(fitted.diagnosis)

    def inputs(self, source: Source) -> tuple[Artefact, ...]:
        """Returns prepared data, the reference, and the plain classifier."""
        data, plain = prepare(self.whole.data, [source]), self._model(BASELINE)
        start = graph.flow_of(self.whole, data) if SCALES[self.whole.scale].classes else None
        trained = graph.flows(self.whole, data, start)
        scores = graph.reference(graph.measuring(self.whole), [data, trained])
        return data, scores, graph.classify(plain, [data], f"{BASELINE}, seed {self.whole.seed}")

    def measured(
        self, trial: ClassifierConfig, title: str, given: Sequence[Artefact]
    ) -> tuple[Artefact, ...]:
        data, scores, _ = given
        trained = graph.classify(trial, [data], title)
        return trained, score(trial, [data, scores, trained], title)

    def scores(self, folders: Sequence[Path]) -> Mapping[str, Mapping[str, float]]:
        return json.loads((folders[1] / "scores.json").read_text())

    def settled(self, trial: ClassifierConfig) -> AlignmentConfig:
        """Returns the study with the trial's regularizer as its model ``custom``."""
        penalty = trial.regularizer.model_dump()
        custom = CustomConfig(**penalty, noise=trial.noise, clip=trial.clip)
        return self.whole.changed(custom=custom)


def _accuracies(plain: Path) -> list[float]:
    """Returns the validation accuracies of the plain training, by epoch."""
    state = json.loads((plain / fitting.STATE).read_text())
    return [epoch["val/accuracy"] for epoch in state["epochs"]]


def judge(
    search: AlignmentSearch, share: float, diagnosis: str, accuracy: float, plain: float
) -> None:
    """Ends a training whose trace passed its floor, or that costs too much accuracy.

    Arguments:
        search: Its grace and the accuracy that may be lost are used.
        share: Of the training that is done.
        diagnosis: Of the training so far.
        accuracy: On the validation rows.
        plain: That of plain cross-entropy after as many epochs.

    Raises:
        Killed: With the rule's line.
    """
    if diagnosis:
        raise Killed(diagnosis)
    if share >= search.grace and plain - accuracy > search.drop:
        raise Killed(
            f"accuracy {accuracy:.3f}, more than {search.drop:g} below the {plain:.3f} of plain "
            f"cross-entropy after as many epochs"
        )
