"""From trials and trainings of the best to a verdict, figures and a page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.config import Section
from pipelines.config.files import dump
from pipelines.data.manifest import Manifest
from pipelines.reporting import claims, pages
from pipelines.reporting.statistics import student
from pipelines.reporting.style import draw
from pipelines.store.files import write_json
from pipelines.tracking.run import StageRun
from tuning import records
from tuning.config import SPLITS, TuneConfig
from tuning.figures import figures
from tuning.problem import Goal, Problem
from tuning.problems import problem
from tuning.records import BASE, Record
from tuning.results import TEMPLATE, means
from tuning.verdict import Setting, decide, settings, trainings

LONG = ("config", "params")
"""Parts of a record that are left to the file of all trials."""


def verdict(
    config: TuneConfig,
    data: Path,
    found: Path,
    cells: Sequence[tuple[Path, ...] | str],
    *,
    run: StageRun,
) -> None:
    """Writes ``best.yaml``, ``trials.json``, ``numbers.json``, ``figures/*.png``, ``report.html``.

    Arguments:
        config: The search and its base.
        data: The prepared folder.
        found: The folder of the search's stage.
        cells: By training, the folders of its stages, or how it diverged.
    """
    run.log_params(config.model_dump())
    searched, trials = problem(config), records.load(found)
    retrained = settings(
        (one.number, one.config.seed, cell if isinstance(cell, str) else searched.scores(cell))
        for one, cell in zip(trainings(searched, trials), cells, strict=True)
    )
    numbers = {
        **json.loads((found / "search.json").read_text()),
        **_numbers(searched, trials, retrained),
        "rows": Manifest.load(data).counts,
    }
    best = next(record for record in trials if record.number == numbers["winner"])
    (run.output / "best.yaml").write_text(dump(_best(searched, best)))
    (run.output / records.ALL).write_text((found / records.ALL).read_text())
    write_json(run.output / claims.NUMBERS, numbers)
    images = draw(figures(searched, trials, retrained), run.output)
    (run.output / "report.html").write_text(_page(searched, trials, numbers, images))
    run.log_artifacts(run.output)


def _best(searched: Problem, best: Record) -> Section:
    """Returns the user's own configuration with the winner's settings; no row is held out."""
    data, name = searched.whole.data.changed(selection=None), f"{searched.whole.name}-best"
    return searched.settled(searched.of(best)).changed(data=data, name=name)


def _numbers(
    searched: Problem, trials: Sequence[Record], retrained: Sequence[Setting]
) -> dict[str, Any]:
    decided, goals = decide(searched.goals, retrained), searched.goals
    known = {record.number: searched.of(record) for record in trials}
    return {
        "verdict": decided.line,
        "winner": decided.winner,
        "gains": {goal: gain._asdict() for goal, gain in decided.gains.items()},
        "goals": [asdict(goal) for goal in goals],
        "settings": [
            {
                **asdict(setting),
                "means": _means(goals, setting),
                "method": searched.method(known[setting.number]),
            }
            for setting in retrained
        ],
        "tried": [{k: v for k, v in asdict(r).items() if k not in LONG} for r in trials],
        "again": f"ebflow run {searched.pipeline} --config",
    }


def _means(goals: Sequence[Goal], setting: Setting) -> dict[str, Any]:
    return {
        split: {g.name: student([*scores[g.name].values()]).interval()._asdict() for g in goals}
        for split, scores in setting.scores.items()
    }


def _page(
    searched: Problem,
    trials: Sequence[Record],
    numbers: Mapping[str, Any],
    images: Mapping[str, Path],
) -> str:
    """Returns the page of a search, its trials by the first goal, those without numbers last."""
    first = searched.goals[0]
    return pages.render(
        TEMPLATE,
        images,
        config=searched.config,
        label=searched.label(searched.base),
        about=searched.about,
        goals=searched.goals,
        splits=SPLITS,
        trials=sorted(trials, key=lambda record: (first.of(record.scores), record.number)),
        numbers=numbers,
        base=BASE,
        seeds=searched.seeds,
        means=partial(means, goals=numbers["goals"]),
        text=dump(searched.config),
    )
