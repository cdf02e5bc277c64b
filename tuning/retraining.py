"""Which trainings follow a search: the base and the best trials, each with fresh seeds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.config import Section
from tuning.config import SearchConfig
from tuning.goals import Goal
from tuning.problems import problem
from tuning.records import BASE, Record, ranked, unbeaten


@dataclass(frozen=True)
class Retraining:
    """One training: of which trial's configuration, and its configuration with its seed."""

    number: int
    config: Section

    @property
    def title(self) -> str:
        """What tells its runs from those of the others."""
        name = "base" if self.number == BASE else f"trial {self.number:03d}"
        return f"{name}, seed {self.config.seed}"


def chosen(top: int, goals: Sequence[Goal], found: list[Record]) -> list[Record]:
    """Returns the best trials besides the base; of several goals, of those that none beats."""
    others = [record for record in ranked(found, goals[0]) if record.number != BASE]
    return (unbeaten(others, goals) if len(goals) > 1 else others)[:top]


def trainings(config: SearchConfig, whole: Section, search: Path) -> list[Retraining]:
    """Returns the trainings that follow, setting by setting; the base's come first.

    Arguments:
        config: The search's configuration.
        whole: The pipeline's.
        search: The folder of the search's stage.
    """
    search_problem = problem(config)
    base = search_problem.base(whole)
    found = [Record(**fields) for fields in json.loads((search / "trials.json").read_text())]
    best = chosen(config.top, search_problem.goals(base), found)
    settings = {BASE: base, **{record.number: search_problem.of(record) for record in best}}
    seeds = range(base.seed + 1, base.seed + 1 + config.seeds)
    return [
        Retraining(number, search_problem.again(whole, setting).changed(seed=seed))
        for number, setting in settings.items()
        for seed in seeds
    ]
