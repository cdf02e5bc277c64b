"""The search problem of the density pipeline."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.cluster.connection import DRIVER
from pipelines.config import DensityConfig, Training
from pipelines.density.checks import check as check_density
from pipelines.density.graph import evaluate, prepare, preprocess, train
from pipelines.density.source import held_out
from pipelines.engine import Artefact, Source
from pipelines.engine.demand import Needs
from pipelines.reporting import titles
from pipelines.reporting.method import method
from tuning.density.config import DensitySearch
from tuning.density.space import propose
from tuning.density.trial import train as train_trial
from tuning.goals import Goal
from tuning.problem import Problem

GOALS = {
    "nll": Goal("nll", "NLL", "nats", float("inf")),
    "seconds": Goal("seconds", "training time", "s", float("inf"), held=False),
}


def goals(search: DensitySearch, base: Training) -> tuple[Goal, ...]:
    """Returns the search's goals."""
    return tuple(GOALS[name] for name in search.goals)


def check(config: DensityConfig) -> tuple[Source, DensityConfig]:
    """Returns the source, and the pipeline with rows for selection."""
    found = held_out(config)
    return check_density(found), found


def base(search: DensitySearch, config: DensityConfig) -> Training:
    """Returns the base as trials train it: validated often enough to be stopped early."""
    found = config.training
    often = search.validate_every or found.train.validate_every
    return found.changed(train={"validate_every": min(often, found.train.validate_every)})


def whole(config: DensityConfig, found: Training) -> Training:
    """Returns a trial's configuration, validated as often as the pipeline's."""
    return found.changed(train={"validate_every": config.train.validate_every})


def best(config: DensityConfig, winner: Training) -> DensityConfig:
    """Returns the pipeline with the winner's settings."""
    kept = {"seed", "cluster"}
    found = whole(config, winner)
    fields = {name: getattr(found, name) for name in Training.model_fields if name not in kept}
    return config.changed(**fields)


def inputs(search: DensitySearch, config: DensityConfig, source: Source) -> tuple[Any, ...]:
    """Returns prepared data, as an expression of redun."""
    return (prepare(config.data, [source]),)


def measured(
    config: DensityConfig, one: Training, title: str, given: Sequence[Artefact]
) -> tuple[Artefact, ...]:
    """Returns a trained flow and its evaluation, as expressions of redun."""
    data = given[0]
    preprocessed = preprocess(one.chain, [data])
    trained = train(one.once, [data, preprocessed], title)
    return trained, evaluate(config.evaluate, [data, preprocessed, trained], title)


def needs(config: Training) -> Needs:
    """Returns what a trainer needs in its own process, or a driver of workers."""
    return DRIVER if config.cluster.workers > 1 else config.needs


def too_large(config: Training, kind: str) -> tuple[str, str]:
    """Returns what makes a trial too large, and what to change."""
    mend = "lower train.threads or cluster.workers, or set cluster.gpu False"
    if config.cluster.workers > 1:
        return f"cluster.workers: found {config.cluster.workers}", mend
    if kind == "GPU":
        return "cluster.gpu: found True", mend
    return f"train.threads: found {config.train.threads}", mend


def scores(folders: Sequence[Path]) -> Mapping[str, Mapping[str, float]]:
    """Returns the NLL by split."""
    evaluation = json.loads((folders[1] / "evaluation.json").read_text())
    return {split: {"nll": evaluation[f"{split}/nll"]} for split in ("select", "test")}


DENSITY = Problem(
    pipeline="density",
    search=DensitySearch,
    config=Training,
    goals=goals,
    check=check,
    base=base,
    whole=whole,
    best=best,
    propose=propose,
    train=train_trial,
    needs=needs,
    too_large=too_large,
    before=(prepare,),
    after=(preprocess, train, evaluate),
    inputs=inputs,
    measured=measured,
    scores=scores,
    method=method,
    label=titles.loss,
    settings=lambda config: config.model_dump(mode="json"),
    about="NLL is in nats an example, in units of the raw data;",
)
