"""An experiment beside published numbers: as a page, in the folder of a run, and printed."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from pipelines.engine import Artefact
from pipelines.engine.pipeline import Description
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments import EXPERIMENTS
from pipelines.paper.experiments.cell import Experiment, Line, Row, summarise
from pipelines.reporting import claims, runs
from pipelines.reporting.claims import Conclusion
from pipelines.tracking.notes import table

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
        [_numbers(experiment, rows), _settings(experiment, rows)],
        config,
    )


def _numbers(experiment: Experiment, rows: Rows) -> claims.Table:
    """Returns all numbers of a line, and where there are published ones, all of those."""
    lines = summarise(experiment.columns, rows)
    compared = _compared(lines)
    headings = [", ".join(lines[0].labels)]
    for column in experiment.columns:
        headings += [column.heading, *(["published"] if compared else [])]
    texts = [[_name(line), *_cells(experiment, line, compared), line.data, str(line.seeds)]
             for line in lines]  # fmt: skip
    return claims.Table(experiment.about, (*headings, "data", "seeds"), texts, experiment.legend)


def _cells(experiment: Experiment, line: Line, compared: bool) -> Iterator[str]:
    texts = _texts(experiment, line, compared=False)[len(line.labels) :]
    for column, text in zip(experiment.columns, texts, strict=True):
        yield text
        if compared:
            yield str(line.published.get(column.metric, ""))


def _settings(experiment: Experiment, rows: Rows) -> claims.Table:
    lines = [(_name(line), line.method) for line in summarise(experiment.columns, rows)]
    return claims.Table("Settings", ("", "how it was made"), lines)


def _name(line: Line) -> str:
    return ", ".join(filter(None, line.labels.values()))


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
        known = {m: mean for m, (mean, _) in line.values.items() if mean == mean}
        run.log_metrics({f"{metric}/{name}": mean for metric, mean in known.items()})
    runs.log(folder, run)


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the table, and where everything is."""
    config, rows = summary["config"], summary["rows"]
    experiment = EXPERIMENTS[config["experiment"]]
    console.print(experiment.about)
    if "claims" in summary:
        claims.show(console, Conclusion.read(summary))
    console.print(_table(experiment, rows))
    console.print(_caption(experiment, config, rows))
    runs.show(console, summary, {})


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
    repeats = "1 seed" if seeds == 1 else f"{seeds} seeds, mean ± 95 % interval"
    data = ", ".join(dict.fromkeys(row["data"] for row in rows))
    here = f"measured: {data}, scale {config['scale']}, {rows[0]['machine']}, {repeats}"
    paper = f"paper: {experiment.note}" if experiment.note else ""
    return "\n".join(filter(None, (experiment.legend, here, paper)))


def _texts(experiment: Experiment, line: Line, *, compared: bool) -> list[str]:
    columns = experiment.columns
    found = [*line.labels.values(), *(c.text(line.values[c.metric]) for c in columns)]
    if line.lost:
        found[-1] = "diverged"
    if compared:
        last = columns[-1]
        value = line.published.get(last.metric)
        found.append("" if value is None else f"{value:.{last.digits}f}")
    return found
