"""An experiment beside published numbers: as a page, in the folder of a run, and printed."""

__all__ = ["TEMPLATE", "log", "page", "publish", "show"]

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from pipelines import pages
from pipelines.config import PaperConfig
from pipelines.config_files import dump
from pipelines.engine import Artefact
from pipelines.experiments import EXPERIMENTS
from pipelines.experiments.cell import Experiment, Line, Row, summarise
from pipelines.tracking import StageRun

TEMPLATE = "comparison.html.j2"

FORBIDDEN = re.compile(r"[^\w.:/ -]")
"""What MLflow does not take in the name of a metric."""

Rows = Sequence[Row]


def page(config: PaperConfig, rows: Rows, images: Mapping[str, Path]) -> str:
    """Returns a self-contained HTML page.

    Arguments:
        config: The experiment.
        rows: Its rows.
        images: PNG files by name of the figure.
    """
    experiment = EXPERIMENTS[config.experiment]
    return pages.render(
        TEMPLATE,
        images,
        config=config,
        experiment=experiment,
        lines=summarise(experiment.columns, rows),
        first=rows[0],
        text=dump(config),
    )


def publish(config: PaperConfig, value: Artefact, folder: Path) -> dict[str, Any]:
    """Copies page and figures into a folder; returns the rows."""
    shutil.copy(value.path / "report.html", folder)
    shutil.copytree(value.path / "figures", folder / "figures")
    return {"rows": json.loads((value.path / "rows.json").read_text())}


def log(config: PaperConfig, value: Artefact, folder: Path, run: StageRun) -> None:
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
    console.print(_table(experiment, rows))
    console.print(_caption(experiment, config, rows), highlight=False)
    lines = {
        "stages": ", ".join(f"{stage} {fate}" for stage, fate in summary["stages"].items()),
        "figures": summary["figures"],
        "report": summary["report"],
        "to look": "ebflow ui",
    }
    for name, text in lines.items():
        console.print(f"{name:<8} {text}", highlight=False, soft_wrap=True)


def _table(experiment: Experiment, rows: Rows) -> Table:
    lines = summarise(experiment.columns, rows)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in lines[0].labels:
        table.add_column(name, no_wrap=True)
    compared = any(line.published for line in lines)
    headings = [column.heading for column in experiment.columns]
    for name in (*headings, *(["paper"] if compared else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*_texts(experiment, line, compared=compared))
    return table


def _caption(experiment: Experiment, config: Mapping[str, Any], rows: Rows) -> str:
    seeds = config["seeds"]
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
