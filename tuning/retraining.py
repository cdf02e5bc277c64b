"""Which trainings follow a search: the base and the best trials, each with fresh seeds."""

__all__ = ["Retraining", "chosen", "of_trials", "trainings"]

import json
from dataclasses import dataclass
from pathlib import Path

from pipelines.config import Training
from tuning.config import SearchConfig
from tuning.records import BASE, Record, ranked


@dataclass(frozen=True)
class Retraining:
    """One training: of which trial's configuration, and its configuration with its seed."""

    number: int
    config: Training


def of_trials(config: SearchConfig, base: Training) -> Training:
    """Returns the base as trials train it: validated often enough to be stopped early."""
    often = config.validate_every or base.train.validate_every
    steps = min(often, base.train.validate_every)
    train = base.train.model_copy(update={"validate_every": steps})
    return base.model_copy(update={"train": train})


def chosen(config: SearchConfig, found: list[Record]) -> list[Record]:
    """Returns the best trials besides the base; of two goals, those that none beats in both."""
    others = [record for record in ranked(found) if record.number != BASE]
    if len(config.goals) > 1:
        others = [record for record in others if not _beaten(record, others)]
    return others[: config.top]


def _beaten(record: Record, others: list[Record]) -> bool:
    mine = (record.nll, record.seconds)
    pairs = [(other.nll, other.seconds) for other in others]
    return any(nll <= mine[0] and s <= mine[1] and (nll, s) != mine for nll, s in pairs)


def trainings(config: SearchConfig, base: Training, search: Path) -> list[Retraining]:
    """Returns the trainings that follow, setting by setting; the base's come first.

    Arguments:
        config: The search's configuration.
        base: What trials start from.
        search: The folder of the search's stage.
    """
    found = [Record(**told) for told in json.loads((search / "trials.json").read_text())]
    best = {record.number: _full(base, record) for record in chosen(config, found)}
    seeds = range(base.seed + 1, base.seed + 1 + config.seeds)
    return [
        Retraining(number, setting.model_copy(update={"seed": seed}))
        for number, setting in {BASE: base, **best}.items()
        for seed in seeds
    ]


def _full(base: Training, record: Record) -> Training:
    """Returns a trial's configuration, validated as often as the base."""
    config = record.training
    often = {"validate_every": base.train.validate_every}
    return config.model_copy(update={"train": config.train.model_copy(update=often)})
