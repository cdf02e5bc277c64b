"""From trials and trainings of the best to a verdict, figures and a page."""

__all__ = ["verdict"]

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib

from ebflow.data.schema import Manifest
from ebflow.errors import NonFinite
from pipelines import rows
from pipelines.config import DensityConfig, Training
from pipelines.config_files import dump
from pipelines.report import STYLE
from pipelines.tracking import StageRun
from tuning.config import TuneConfig
from tuning.figures import figures
from tuning.records import Record
from tuning.report import page
from tuning.retraining import trainings
from tuning.verdict import Setting, decide, interval, settings

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
        output: Where to.
        work: Not used.
        run: The stage's run.
    """
    run.log_params(config.model_dump())
    trials = [Record(**told) for told in json.loads((found / "trials.json").read_text())]
    told = settings(list(_scores(config, found, cells)))
    if all(setting.lost for setting in told):
        raise NonFinite(f"trainings of every setting diverged, the first: {told[0].lost}")
    numbers = _numbers(found, Manifest.load(data), told)
    best = next(record for record in trials if record.number == numbers["winner"])
    (output / "best.yaml").write_text(dump(_best(config.base, best)))
    (output / "trials.json").write_text((found / "trials.json").read_text())
    (output / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n")
    images = _draw(config, trials, _curves(found), told, output / "figures")
    (output / "report.html").write_text(page(config, trials, numbers, best, images))
    run.log_artifacts(output)


def _scores(
    config: TuneConfig, found: Path, cells: Sequence[Folders | str]
) -> Iterator[dict[str, Any]]:
    """Yields what each training came to."""
    planned = trainings(config.search, config.base.training, found)
    for one, told in zip(planned, cells, strict=True):
        row = {"number": one.number, "seed": one.config.seed}
        if isinstance(told, str):
            yield {**row, "lost": told}
            continue
        scores = json.loads((told[1] / "evaluation.json").read_text())
        yield {**row, "select": scores["select/nll"], "test": scores["test/nll"]}


def _numbers(found: Path, manifest: Manifest, told: Sequence[Setting]) -> dict[str, Any]:
    decided = decide(told)
    return {
        **json.loads((found / "search.json").read_text()),
        "verdict": decided.line,
        "winner": decided.winner,
        "gain": None if decided.gain is None else asdict(decided.gain),
        "rows": manifest.counts,
        "settings": [_told(setting) for setting in told],
    }


def _told(setting: Setting) -> dict[str, Any]:
    if setting.lost:
        return asdict(setting)
    means = {name: asdict(interval(list(getattr(setting, name).values())))
             for name in ("select", "test")}  # fmt: skip
    return {**asdict(setting), "means": means}


def _best(base: DensityConfig, best: Record) -> DensityConfig:
    """Returns the user's own configuration with the winner's settings; no row is held out."""
    config = best.training
    kept = {"seed", "cluster"}
    fields = {name: getattr(config, name) for name in Training.model_fields if name not in kept}
    often = {"validate_every": base.train.validate_every}
    fields["train"] = config.train.model_copy(update=often)
    data = base.data.model_copy(update={"selection": None})
    return base.model_copy(update={**fields, "data": data, "name": f"{base.name}-best"})


def _curves(found: Path) -> dict[int, list[rows.Row]]:
    """Returns the validations of every trial."""
    paths = sorted((found / "rows").glob("*.jsonl"))
    return {int(path.stem): rows.curve(rows.read(path)[0], "validate") for path in paths}


def _draw(
    config: TuneConfig,
    trials: Sequence[Record],
    curves: dict[int, list[rows.Row]],
    told: Sequence[Setting],
    folder: Path,
) -> dict[str, Path]:
    folder.mkdir()
    images = {}
    with matplotlib.rc_context(STYLE):
        for name, figure in figures(config, trials, curves, told).items():
            images[name] = folder / f"{name}.png"
            figure.savefig(images[name])
    return images
