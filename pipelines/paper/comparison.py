"""An experiment beside published numbers: as a page, in the folder of a run, and printed."""

__all__ = ["CONCLUSION", "TEMPLATE", "conclude", "describe", "log", "page", "publish", "show"]

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from pipelines.config import PaperConfig
from pipelines.config.files import dump
from pipelines.engine import Artefact
from pipelines.engine.pipeline import Description
from pipelines.paper.experiments import EXPERIMENTS
from pipelines.paper.experiments.cell import Experiment, Line, Row, summarise
from pipelines.reporting import claims, pages
from pipelines.reporting.claims import Conclusion
from pipelines.tracking.notes import table

if TYPE_CHECKING:
    from pipelines.tracking import StageRun

TEMPLATE = Path(__file__).with_name("comparison.html.j2")

CONCLUSION = "conclusion.json"
"""File of what an experiment with claims concludes."""

FORBIDDEN = re.compile(r"[^\w.:/ -]")
"""What MLflow does not take in the name of a metric."""

Rows = Sequence[Row]


def page(
    config: PaperConfig,
    rows: Rows,
    images: Mapping[str, Path],
    told: Conclusion | None = None,
) -> str:
    """Returns a self-contained HTML page.

    Arguments:
        config: The experiment.
        rows: Its rows.
        images: PNG files by name of the figure.
        told: What it concludes, if it has claims.
    """
    experiment = EXPERIMENTS[config.experiment]
    if told:
        return _study(config, experiment, rows, images, told)
    return pages.render(
        TEMPLATE,
        images,
        config=config,
        experiment=experiment,
        lines=summarise(experiment.columns, rows),
        first=rows[0],
        seeds=len({row["seed"] for row in rows}),
        text=dump(config),
    )


def _study(
    config: PaperConfig,
    experiment: Experiment,
    rows: Rows,
    images: Mapping[str, Path],
    told: Conclusion,
) -> str:
    """Returns the page of an experiment with claims."""
    lines = summarise(experiment.columns, rows)
    texts = [_texts(experiment, line, compared=False) for line in lines]
    heading = tuple(_heading(experiment, lines))
    shown = claims.Table(experiment.about, heading, texts, experiment.legend)
    captions = experiment.study.captions
    figures = {name: claims.Figure(file, captions[name]) for name, file in images.items()}
    intro = _caption(experiment, config.model_dump(), rows)
    title = f"{config.experiment}: {experiment.about}"
    return claims.page(title, intro, told, figures, [shown], config)


def describe(config: PaperConfig) -> Description:
    """Returns experiment, scale and data, and what the table shows."""
    experiment = EXPERIMENTS[config.experiment]
    known = (config.source or experiment.source, *config.sources)
    data = tuple(Path(source).stem for source in known if source)
    return Description(
        parts=(config.experiment, f"scale {config.scale}", *data),
        about=f"Experiment **{config.experiment}** of the paper: {experiment.about}.",
        tags={
            "ebflow.data": ", ".join(data),
            "ebflow.experiment": config.experiment,
            "ebflow.scale": config.scale,
        },
    )


def conclude(summary: Mapping[str, Any]) -> str:
    """Returns the table."""
    config, rows = summary["config"], summary["rows"]
    experiment = EXPERIMENTS[config["experiment"]]
    lines = summarise(experiment.columns, rows)
    texts = [_texts(experiment, line, compared=_compared(lines)) for line in lines]
    caption = _caption(experiment, config, rows)
    shown = f"{table(_heading(experiment, lines), texts)}\n\n{caption}"
    return f"{claims.conclude(summary)}\n\n{shown}" if "claims" in summary else shown


def publish(config: PaperConfig, value: Artefact, folder: Path) -> dict[str, Any]:
    """Copies page and figures into a folder; returns the rows, and what is concluded."""
    shutil.copy(value.path / "report.html", folder)
    shutil.copytree(value.path / "figures", folder / "figures")
    told = value.path / CONCLUSION
    concluded = json.loads(told.read_text()) if told.exists() else {}
    return {"rows": json.loads((value.path / "rows.json").read_text()), **concluded}


def log(config: PaperConfig, value: Artefact, folder: Path, run: "StageRun") -> None:
    """Logs the parameters, every line of the table, the page and the figures."""
    run.log_params(config.model_dump())
    rows = json.loads((value.path / "rows.json").read_text())
    for line in summarise(EXPERIMENTS[config.experiment].columns, rows):
        name = FORBIDDEN.sub("and", "/".join(filter(None, line.labels.values())))
        known = {m: mean for m, (mean, _) in line.values.items() if mean == mean}
        run.log_metrics({f"{metric}/{name}": mean for metric, mean in known.items()})
    run.log_artifacts(folder / "report.html")
    run.log_artifacts(folder / "figures", "figures")


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the table, and where everything is."""
    config, rows = summary["config"], summary["rows"]
    experiment = EXPERIMENTS[config["experiment"]]
    console.print(experiment.about, highlight=False)
    if "claims" in summary:
        claims.show(console, Conclusion.read(summary))
    console.print(_table(experiment, rows))
    console.print(_caption(experiment, config, rows), highlight=False)
    lines = {
        "stages": ", ".join(f"{stage} {status}" for stage, status in summary["stages"].items()),
        "figures": summary["figures"],
        "report": summary["report"],
        "to look": "ebflow ui",
    }
    for name, text in lines.items():
        console.print(f"{name:<8} {text}", highlight=False, soft_wrap=True)


def _table(experiment: Experiment, rows: Rows) -> Table:
    lines = summarise(experiment.columns, rows)
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in _heading(experiment, lines):
        side = "left" if name in lines[0].labels else "right"
        shown.add_column(name, justify=side, no_wrap=True)
    for line in lines:
        shown.add_row(*_texts(experiment, line, compared=_compared(lines)))
    return shown


def _heading(experiment: Experiment, lines: Sequence[Line]) -> list[str]:
    headings = (column.heading for column in experiment.columns)
    return [*lines[0].labels, *headings, *(["paper"] if _compared(lines) else [])]


def _compared(lines: Sequence[Line]) -> bool:
    return any(line.published for line in lines)


def _caption(experiment: Experiment, config: Mapping[str, Any], rows: Rows) -> str:
    seeds = len({row["seed"] for row in rows})
    told = "1 seed" if seeds == 1 else f"{seeds} seeds, mean ± 95 % interval"
    data = ", ".join(dict.fromkeys(row["data"] for row in rows))
    here = f"measured: {data}, scale {config['scale']}, {rows[0]['machine']}, {told}"
    paper = f"paper: {experiment.note}" if experiment.note else ""
    return "\n".join(filter(None, (experiment.legend, here, paper)))


def _texts(experiment: Experiment, line: Line, *, compared: bool) -> list[str]:
    columns = experiment.columns
    found = [*line.labels.values(), *(c.told(line.values[c.metric]) for c in columns)]
    if line.lost:
        found[-1] = "diverged"
    if compared:
        last = columns[-1]
        value = line.published.get(last.metric)
        found.append("" if value is None else f"{value:.{last.digits}f}")
    return found
