"""The search problem of the study of gradient alignment."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.config.source import held_out
from pipelines.density.graph import prepare
from pipelines.engine import Artefact, Source, own, stage
from pipelines.gradient_alignment.config import (
    AlignmentConfig,
    ClassifierConfig,
    CustomConfig,
    RegulariserConfig,
)
from pipelines.gradient_alignment.graph import check, classify, flow, flows, measuring, reference
from pipelines.gradient_alignment.method import method, title
from pipelines.gradient_alignment.models import BASELINE
from pipelines.gradient_alignment.scales import models
from tuning.alignment import space
from tuning.alignment.config import AlignmentSearch
from tuning.alignment.trial import train
from tuning.goals import Goal
from tuning.problem import Problem
from tuning.suggest import Suggest

score = stage("tuning.stages.score", needs=own)

START = "score"
"""The model whose regulariser is the base's, if the study has none of the user's own."""


class AlignmentProblem(Problem[AlignmentSearch, AlignmentConfig, ClassifierConfig]):
    """Regularisers of a classifier that bring its gradients nearer to scores."""

    pipeline, searches, trains = "gradient-alignment", AlignmentSearch, ClassifierConfig
    before, after = (prepare, flow, reference, classify), (score,)
    smaller = "set gpu False, or choose a smaller scale"
    about = (
        "A3 is the mean cosine, at noisy rows, of the true class's logit-gradient less the mean "
        "over classes with the score of that class's reference flow less theirs; no shift of all "
        "logits moves it. Accuracy is that of clean rows;"
    )

    def check(self, whole: AlignmentConfig) -> tuple[Source, AlignmentConfig]:
        """Returns the source, and the study with a reference a class and rows for selection."""
        found = held_out(whole.changed(reference={"conditional": True}))
        return check(found), found

    def base(self, whole: AlignmentConfig) -> ClassifierConfig:
        """Returns what has the user's own regulariser, or the recommended one."""
        return self._model(whole, START if whole.custom.name == "none" else "custom")

    def _model(self, whole: AlignmentConfig, name: str) -> ClassifierConfig:
        study = whole.changed(models=(BASELINE, START), seed=self.search.seed)
        return next(model.classifier for model in models(study) if model.name == name)

    def goals(self, base: ClassifierConfig) -> tuple[Goal, ...]:
        """Returns A3, which is to be small with ``anti``, and accuracy; the search's of these.

        A3 and not A1, which a class-blind density on every logit raises though it changes no
        prediction: a search for A1 finds the regulariser that fits that density.
        """
        up, margin = base.regulariser.name != "anti", self.search.drop
        known = {
            "A3": Goal("A3", "A3", "", -1.0 if up else 1.0, largest=up, digits=3),
            "accuracy": Goal("accuracy", "accuracy", "", 0.0, True, digits=3, margin=margin),
        }
        return tuple(known[name] for name in self.search.goals)

    def propose(self, ask: Suggest, base: ClassifierConfig) -> ClassifierConfig:
        return space.propose(ask, self.search, base)

    def train(self, trial: ClassifierConfig, inputs: Sequence[Path], folder: Path) -> None:
        train(self.search, trial, inputs, folder)

    def inputs(self, whole: AlignmentConfig, source: Source) -> tuple[Artefact, ...]:
        """Returns prepared data, the reference, and the plain classifier."""
        data, plain = prepare(whole.data, [source]), self._model(whole, BASELINE)
        scores = reference(measuring(whole), [data, flows(whole, data)])
        return data, scores, classify(plain, [data], f"{BASELINE}, seed {self.search.seed}")

    def measured(
        self,
        whole: AlignmentConfig,
        trial: ClassifierConfig,
        title: str,
        given: Sequence[Artefact],
    ) -> tuple[Artefact, ...]:
        data, scores, _ = given
        trained = classify(trial, [data], title)
        return trained, score(trial, [data, scores, trained], title)

    def scores(self, folders: Sequence[Path]) -> Mapping[str, Mapping[str, float]]:
        return json.loads((folders[1] / "scores.json").read_text())

    def best(self, whole: AlignmentConfig, winner: ClassifierConfig) -> AlignmentConfig:
        """Returns the study with the winner's regulariser as its model ``custom``."""
        return whole.changed(custom=CustomConfig.model_validate(self.settings(winner)["custom"]))

    def method(self, trial: ClassifierConfig) -> str:
        return method(trial)

    def label(self, trial: ClassifierConfig) -> str:
        return title(trial.regulariser)

    def settings(self, trial: ClassifierConfig) -> dict[str, Any]:
        """Returns a trial's regulariser as fields of the study."""
        kept = set(RegulariserConfig.model_fields)
        known = trial.regulariser.model_dump(mode="json", include=kept)
        return {"custom": {**known, "noise": trial.noise, "clip": trial.clip}}
