"""The search problem of the study of gradient alignment."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.density.graph import prepare
from pipelines.density.source import held_out
from pipelines.engine import Artefact, Source, own, stage
from pipelines.gradient_alignment.config import (
    AlignmentConfig,
    ClassifierConfig,
    CustomConfig,
    RegulariserConfig,
)
from pipelines.gradient_alignment.graph import check as check_study
from pipelines.gradient_alignment.graph import classify, flow, flows, measuring, reference
from pipelines.gradient_alignment.method import method, title
from pipelines.gradient_alignment.models import BASELINE
from pipelines.gradient_alignment.scales import models
from tuning.alignment.config import AlignmentSearch
from tuning.alignment.space import propose
from tuning.alignment.trial import train
from tuning.goals import Goal
from tuning.problem import Problem

score = stage("tuning.stages.score", needs=own)

START = "score"
"""The model whose regulariser is the base's, if the study has none of the user's own."""


def goals(search: AlignmentSearch, base: ClassifierConfig) -> tuple[Goal, ...]:
    """Returns A3, which is to be small with ``anti``, and accuracy; the search's of these.

    A3 and not A1, which a class-blind density on every logit raises though it changes no
    prediction: a search for A1 finds the regulariser that fits that density.
    """
    up = base.regulariser.name != "anti"
    known = {
        "A3": Goal("A3", "A3", "", -1.0 if up else 1.0, largest=up, digits=3),
        "accuracy": Goal("accuracy", "accuracy", "", 0.0, True, digits=3, margin=search.drop),
    }
    return tuple(known[name] for name in search.goals)


def check(config: AlignmentConfig) -> tuple[Source, AlignmentConfig]:
    """Returns the source, and the study with a reference a class and rows for selection."""
    study = held_out(config.changed(reference={"conditional": True}))
    return check_study(study), study


def base(search: AlignmentSearch, config: AlignmentConfig) -> ClassifierConfig:
    """Returns what trials start from: the user's own regulariser, or the recommended one."""
    return _model(config, START if config.custom.name == "none" else "custom", search.seed)


def _model(config: AlignmentConfig, name: str, seed: int) -> ClassifierConfig:
    study = config.changed(models=(BASELINE, START), seed=seed)
    return next(model.classifier for model in models(study) if model.name == name)


def best(config: AlignmentConfig, winner: ClassifierConfig) -> AlignmentConfig:
    """Returns the study with the winner's regulariser as its model ``custom``."""
    custom = CustomConfig.model_validate(settings(winner)["custom"])
    return config.changed(custom=custom)


def settings(config: ClassifierConfig) -> dict[str, Any]:
    """Returns a trial's regulariser as fields of the study."""
    known = config.regulariser.model_dump(mode="json", include=set(RegulariserConfig.model_fields))
    return {"custom": {**known, "noise": config.noise, "clip": config.clip}}


def inputs(search: AlignmentSearch, config: AlignmentConfig, source: Source) -> tuple[Any, ...]:
    """Returns prepared data, the reference, and the plain classifier, as expressions of redun."""
    data = prepare(config.data, [source])
    plain = _model(config, BASELINE, search.seed)
    return (
        data,
        reference(measuring(config), [data, flows(config, data)]),
        classify(plain, [data], f"{BASELINE}, seed {search.seed}"),
    )


def measured(
    config: AlignmentConfig, one: ClassifierConfig, title: str, given: Sequence[Artefact]
) -> tuple[Artefact, ...]:
    """Returns a trained classifier and its goals on held-out rows, as expressions of redun."""
    data, scores, _ = given
    trained = classify(one, [data], title)
    return trained, score(one, [data, scores, trained], title)


def too_large(config: ClassifierConfig, kind: str) -> tuple[str, str]:
    """Returns what makes a trial too large, and what to change."""
    threads = f"scale: found one of {config.threads} threads"
    found = "gpu: found True" if kind == "GPU" else threads
    return found, "set gpu False, or choose a smaller scale"


def scores(folders: Sequence[Path]) -> Mapping[str, Mapping[str, float]]:
    """Returns the goals by split."""
    return json.loads((folders[1] / "scores.json").read_text())


ALIGNMENT = Problem(
    pipeline="gradient-alignment",
    search=AlignmentSearch,
    config=ClassifierConfig,
    goals=goals,
    check=check,
    base=base,
    whole=lambda config, found: found,
    best=best,
    propose=propose,
    train=train,
    needs=own,
    too_large=too_large,
    before=(prepare, flow, reference, classify),
    after=(score,),
    inputs=inputs,
    measured=measured,
    scores=scores,
    method=method,
    label=lambda config: title(config.regulariser),
    settings=settings,
    about="A3 is the mean cosine, at noisy rows, of the true class's logit-gradient less the mean "
    "over classes with the score of that class's reference flow less theirs; no shift of all "
    "logits moves it. Accuracy is that of clean rows;",
)
