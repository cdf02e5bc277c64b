"""The page of a search."""

__all__ = ["TEMPLATE", "page"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.config.files import dump
from pipelines.reporting import pages
from tuning.config import TuneConfig
from tuning.goals import Goal
from tuning.problems import problem
from tuning.records import BASE, Record
from tuning.results import means
from tuning.verdict import SPLITS

TEMPLATE = Path(__file__).with_name("search.html.j2")


def page(
    config: TuneConfig,
    trials: Sequence[Record],
    numbers: Mapping[str, Any],
    best: Record,
    images: Mapping[str, Path],
) -> str:
    """Returns a self-contained HTML page.

    Arguments:
        config: The search and its base.
        trials: Its trials.
        numbers: The verdict and what it rests on.
        best: The winner.
        images: PNG files by name of the figure.
    """
    asked = problem(config.search)
    base = asked.base(config.search, config.base)
    goals = asked.goals(config.search, base)
    known = {record.number: record for record in trials}
    return pages.render(
        TEMPLATE,
        images,
        config=config,
        label=asked.label(base),
        about=asked.about,
        goals=[goal for goal in goals if goal.held],
        splits=SPLITS,
        trials=sorted(trials, key=lambda r: (not r.scores, _cost(goals[0], r), r.number)),
        numbers=numbers,
        best=best,
        base=BASE,
        means={s["number"]: means(s, numbers["goals"]) for s in numbers["settings"]},
        methods={
            s["number"]: asked.method(asked.of(known[s["number"]])) for s in numbers["settings"]
        },
        text=dump(config),
    )


def _cost(goal: Goal, record: Record) -> float:
    return goal.of(record.values) if record.scores else 0.0
