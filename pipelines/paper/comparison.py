"""An experiment beside published numbers: as a page, in the folder of a run, and printed."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.engine import Artefact
from pipelines.engine.pipeline import Description
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments import EXPERIMENTS
from pipelines.paper.experiments.cell import Column, Experiment, Line, Row, summarise
from pipelines.reporting import claims, intervals, runs, terminal
from pipelines.reporting.claims import Conclusion
from pipelines.tracking import notes

if TYPE_CHECKING:
    from pipelines.tracking import StageRun

CONCLUSION = "conclusion.json"
"""File of what an experiment with claims concludes."""

FORBIDDEN = re.compile(r"[^\w.:/ -]")
"""What MLflow does not take in the name of a metric."""

Rows = Sequence[Row]


def page(
    config: PaperConfig,
    rows: Rows,
    images: Mapping[str, Path],
    conclusion: Conclusion | None = None,
) -> str:
    """Returns a self-contained HTML page.

    Arguments:
        config: The experiment.
        rows: Its rows.
        images: PNG files by name of the figure.
        conclusion: What it concludes, if it has claims.
    """
    experiment = EXPERIMENTS[config.experiment]
    lines = summarise(experiment.columns, rows)
    names = [", ".join(filter(None, line.labels.values())) for line in lines]
    headings, *texts = _sheet(experiment.columns, lines, experiment.columns)
    numbers = [
        (name, *text, line.data, str(line.seeds))
        for name, text, line in zip(names, texts, lines, strict=True)
    ]
    methods = [(name, line.method) for name, line in zip(names, lines, strict=True)]
    shown = (", ".join(lines[0].labels), *headings, "data", "seeds")
    return claims.page(
        f"{config.experiment}: {experiment.about}",
        f"{_caption(experiment, config.model_dump(), rows)}\nNLL is in nats an example, in units "
        "of the raw data. Below scale full published and measured numbers are no reproduction of "
        "each other.",
        conclusion or Conclusion((), (), (), ()),
        {
            name: claims.Figure(file, experiment.captions.get(name, ""))
            for name, file in images.items()
        },
        [
            claims.Table(experiment.about, shown, numbers, experiment.legend),
            claims.Table("Settings", ("", "how it was made"), methods),
        ],
        config,
    )


def _sheet(
    columns: Sequence[Column], lines: Sequence[Line], beside: Sequence[Column]
) -> list[tuple[str, ...]]:
    """Returns headings, and for every line its numbers as text.

    Behind the columns in ``beside`` stand the published ones, if any line has some.
    """
    compared = any(line.published for line in lines)
    found = []
    for column in columns:
        values = [intervals.shown(line.values[column.metric], column.digits) for line in lines]
        if column == columns[-1]:
            pairs = zip(lines, values, strict=True)
            values = ["diverged" if line.lost else value for line, value in pairs]
        found.append((column.heading, *values))
        if compared and column in beside:
            known = (line.published.get(column.metric) for line in lines)
            texts = ("" if one is None else f"{one:.{column.digits}f}" for one in known)
            found.append(("paper", *texts))
    return list(zip(*found, strict=True))


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


def publish(config: PaperConfig, value: Artefact, folder: Path) -> dict[str, Any]:
    """Copies page and figures into a folder; returns the rows, and what is concluded."""
    runs.publish(value.path, folder)
    file = value.path / CONCLUSION
    concluded = json.loads(file.read_text()) if file.exists() else {}
    return {"rows": json.loads((value.path / "rows.json").read_text()), **concluded}


def log(config: PaperConfig, value: Artefact, folder: Path, run: "StageRun") -> None:
    """Logs the parameters, every line of the table, the page and the figures."""
    run.log_params(config.model_dump())
    rows = json.loads((value.path / "rows.json").read_text())
    for line in summarise(EXPERIMENTS[config.experiment].columns, rows):
        name = FORBIDDEN.sub("and", "/".join(filter(None, line.labels.values())))
        known = {m: found.value for m, found in line.values.items() if found.value == found.value}
        run.log_metrics({f"{metric}/{name}": mean for metric, mean in known.items()})
    runs.log(folder, run)


def conclude(summary: Mapping[str, Any]) -> str:
    """Returns the claims, if there are any, and the table, in Markdown."""
    experiment = EXPERIMENTS[summary["config"]["experiment"]]
    shown = notes.table(*_table(experiment, summary["rows"]))
    caption = _caption(experiment, summary["config"], summary["rows"])
    concluded = claims.conclude(summary) if "claims" in summary else ""
    return "\n\n".join(filter(None, (concluded, shown, caption)))


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the table, and where everything is."""
    config, rows = summary["config"], summary["rows"]
    experiment = EXPERIMENTS[config["experiment"]]
    console.print(experiment.about)
    if "claims" in summary:
        claims.show(console, Conclusion.read(summary))
    console.print(terminal.table(*_table(experiment, rows)))
    console.print(_caption(experiment, config, rows))
    runs.show(console, summary, {})


def _table(experiment: Experiment, rows: Rows) -> tuple[list[str], list[tuple[str, ...]]]:
    """Returns headings and lines; of the published numbers those of the last column."""
    lines = summarise(experiment.columns, rows)
    headings, *texts = _sheet(experiment.columns, lines, experiment.columns[-1:])
    whole = [(*line.labels.values(), *text) for line, text in zip(lines, texts, strict=True)]
    return [*lines[0].labels, *headings], whole


def _caption(experiment: Experiment, config: Mapping[str, Any], rows: Rows) -> str:
    seeds = len({row["seed"] for row in rows})
    repeats = "1 seed" if seeds == 1 else f"{seeds} seeds, mean ± 95 % interval"
    data = ", ".join(dict.fromkeys(row["data"] for row in rows))
    here = f"measured: {data}, scale {config['scale']}, {rows[0]['machine']}, {repeats}"
    paper = f"paper: {experiment.note}" if experiment.note else ""
    return "\n".join(filter(None, (experiment.legend, here, paper)))
