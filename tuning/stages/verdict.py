"""From trials and trainings of the best to a verdict, figures and a page."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ebflow.data.manifest import Manifest
from ebflow.errors import NonFinite
from ebflow.inference import student
from pipelines.config import Section
from pipelines.config.files import dump
from pipelines.reporting import pages
from pipelines.reporting.intervals import fields
from pipelines.reporting.style import draw
from pipelines.tracking import StageRun
from pipelines.training import metrics_log
from tuning import TEMPLATE
from tuning.config import TuneConfig
from tuning.figures import figures
from tuning.goals import Goal
from tuning.problems import problem
from tuning.records import BASE, Record
from tuning.results import means
from tuning.retraining import trainings
from tuning.verdict import SPLITS, Setting, decide, settings

Folders = tuple[Path, ...]


def verdict(
    config: TuneConfig,
    data: Path,
    found: Path,
    cells: Sequence[Folders | str],
    *,
    output: Path,
    work: Path,
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
    trials = [Record(**fields) for fields in json.loads((found / "trials.json").read_text())]
    retrained = settings(list(_scores(config, found, cells)))
    if all(setting.lost for setting in retrained):
        raise NonFinite(f"trainings of every setting diverged, the first: {retrained[0].lost}")
    search_problem = problem(config.search)
    base = search_problem.base(config.base)
    goals = search_problem.goals(base)
    numbers = _numbers(goals, found, Manifest.load(data), retrained)
    numbers["again"] = f"ebflow run {search_problem.pipeline} --config"
    best = next(record for record in trials if record.number == numbers["winner"])
    (output / "best.yaml").write_text(dump(_best(config, best)))
    (output / "trials.json").write_text((found / "trials.json").read_text())
    (output / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n")
    images = draw(
        lambda: figures(config.search, goals, base, trials, _curves(found), retrained), output
    )
    (output / "report.html").write_text(_page(config, goals, base, trials, numbers, best, images))
    run.log_artifacts(output)


def _scores(
    config: TuneConfig, found: Path, cells: Sequence[Folders | str]
) -> Iterator[dict[str, Any]]:
    """Yields what each training came to."""
    planned, search_problem = trainings(config.search, config.base, found), problem(config.search)
    for one, result in zip(planned, cells, strict=True):
        row = {"number": one.number, "seed": one.config.seed}
        if isinstance(result, str):
            yield {**row, "lost": result}
            continue
        yield {**row, "scores": search_problem.scores(result)}


def _numbers(
    goals: Sequence[Goal], found: Path, manifest: Manifest, retrained: Sequence[Setting]
) -> dict[str, Any]:
    decided = decide(goals, retrained)
    held = [goal for goal in goals if goal.held]
    return {
        **json.loads((found / "search.json").read_text()),
        "verdict": decided.line,
        "winner": decided.winner,
        "gains": {goal: fields(gain) for goal, gain in decided.gains.items()},
        "goals": [asdict(goal) for goal in held],
        "rows": manifest.counts,
        "settings": [_entry(held, setting) for setting in retrained],
    }


def _entry(goals: Sequence[Goal], setting: Setting) -> dict[str, Any]:
    if setting.lost:
        return asdict(setting)
    means = {
        split: {g.name: fields(student(list(scores[g.name].values())).interval()) for g in goals}
        for split, scores in setting.scores.items()
    }
    return {**asdict(setting), "means": means}


def _best(config: TuneConfig, best: Record) -> Section:
    """Returns the user's own configuration with the winner's settings; no row is held out."""
    search_problem = problem(config.search)
    found = search_problem.best(config.base, search_problem.of(best))
    data = config.base.data.changed(selection=None)
    return found.changed(data=data, name=f"{config.base.name}-best")


def _curves(found: Path) -> dict[int, list[metrics_log.Row]]:
    """Returns the validations of every trial."""
    paths = sorted((found / "rows").glob("*.jsonl"))
    return {
        int(path.stem): metrics_log.curve(metrics_log.read(path)[0], "validate") for path in paths
    }


def _page(
    config: TuneConfig,
    goals: Sequence[Goal],
    base: Section,
    trials: Sequence[Record],
    numbers: Mapping[str, Any],
    best: Record,
    images: Mapping[str, Path],
) -> str:
    """Returns the page of a search, its trials by the first goal, those without numbers last."""
    search_problem, settings, first = problem(config.search), numbers["settings"], goals[0]
    known = {record.number: record for record in trials}
    return pages.render(
        TEMPLATE,
        images,
        config=config,
        label=search_problem.label(base),
        about=search_problem.about,
        goals=[goal for goal in goals if goal.held],
        splits=SPLITS,
        trials=sorted(trials, key=lambda r: (not r.scores, _cost(first, r), r.number)),
        numbers=numbers,
        best=best,
        base=BASE,
        means={one["number"]: means(one, numbers["goals"]) for one in settings},
        methods={
            one["number"]: search_problem.method(search_problem.of(known[one["number"]]))
            for one in settings
        },
        text=dump(config),
    )


def _cost(goal: Goal, record: Record) -> float:
    return goal.of(record.values) if record.scores else 0.0
