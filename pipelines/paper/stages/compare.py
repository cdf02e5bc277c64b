"""From the cells of an experiment to a table, figures and a page, published beside measured, and
what of them is in the folder of a run, and printed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ebflow.errors import NonFinite
from pipelines.engine.pipeline import Description
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments import EXPERIMENTS
from pipelines.paper.experiments.cell import Column, Experiment, Folders, Line, Row, summarize
from pipelines.reporting import claims, studies, terminal
from pipelines.reporting.result import Table, plus_minus
from pipelines.tracking import notes
from pipelines.tracking.run import StageRun

Rows = Sequence[Row]


def compare(config: PaperConfig, found: Sequence[Folders | str], *, run: StageRun) -> None:
    """Writes what all studies leave; cells that diverged come last.

    Arguments:
        config: The experiment.
        found: The folders of the cells' stages, cell by cell; of one that diverged, how it did.
    """
    experiment = EXPERIMENTS[config.experiment]
    pairs = list(zip(experiment.placed(config), found, strict=True))
    cells = [cell for cell, result in pairs if not isinstance(result, str)]
    folders = [result for result in found if not isinstance(result, str)]
    if not cells:
        raise NonFinite(f"every cell diverged, the first: {found[0]}")
    whole = experiment.rows(cells, folders)
    rows = [*whole, *(cell.lost(result) for cell, result in pairs if isinstance(result, str))]
    intro = (
        f"{_caption(experiment, config.model_dump(), rows)}\nNLL is in nats an example, in units "
        "of the raw data. Below scale full published and measured numbers are no reproduction of "
        "each other."
    )
    studies.write(
        run, config, f"{config.experiment}: {experiment.about}", intro,
        experiment.conclude(folders), experiment.figures(whole, folders),
        tables(experiment, rows), {"rows": rows},
    )  # fmt: skip


def tables(experiment: Experiment, rows: Rows) -> list[Table]:
    """Returns the tables of the page: numbers beside published ones, and how cells are made."""
    lines = summarize(experiment.columns, rows)
    headings, *texts = _sheet(experiment.columns, lines, beside_all=True)
    numbers = [
        (line.name, *text, line.first["data"], str(len(line.rows)))
        for line, text in zip(lines, texts, strict=True)
    ]
    methods = [(line.name, line.first["method"]) for line in lines]
    shown = (", ".join(lines[0].first["labels"]), *headings, "data", "seeds")
    return [
        Table(experiment.about, shown, numbers, experiment.legend),
        Table("Settings", ("", "how it was made"), methods),
    ]


def _sheet(
    columns: Sequence[Column], lines: Sequence[Line], *, beside_all: bool
) -> list[tuple[str, ...]]:
    """Returns headings, and for every line its numbers as text; columns without any are left out.

    Behind all columns, or the last alone, stand the published numbers, if any line has some.
    """
    whole = [
        (column, [plus_minus(line.value(column), column.digits) for line in lines])
        for column in columns
    ]
    known, found = [one for one in whole if any(one[1])] or whole, []
    for column, values in known:
        last = column == known[-1][0]
        if last:
            pairs = zip(lines, values, strict=True)
            values = ["diverged" if "diverged" in line.first else value for line, value in pairs]
        found.append((column.heading, *values))
        published = [line.first["published"].get(column.metric) for line in lines]
        texts = ["" if one is None else f"{one:.{column.digits}f}" for one in published]
        if any(texts) and (last or beside_all):
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


def conclude(summary: Mapping[str, Any]) -> str:
    """Returns the claims, if there are any, and the table, in Markdown."""
    experiment = EXPERIMENTS[summary["config"]["experiment"]]
    shown = notes.table(*_table(experiment, summary["rows"]))
    caption = _caption(experiment, summary["config"], summary["rows"])
    concluded = claims.conclude(summary) if summary["claims"] else ""
    return "\n\n".join(filter(None, (concluded, shown, caption)))


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the table, and where everything is."""
    config, rows = summary["config"], summary["rows"]
    experiment = EXPERIMENTS[config["experiment"]]
    console.print(experiment.about)
    if summary["claims"]:
        claims.show(console, summary)
    console.print(terminal.table(*_table(experiment, rows)))
    console.print(_caption(experiment, config, rows))
    terminal.show_run(console, summary, {})


def _table(experiment: Experiment, rows: Rows) -> tuple[list[str], list[tuple[str, ...]]]:
    """Returns headings and lines; of the published numbers those of the last column."""
    lines = summarize(experiment.columns, rows)
    headings, *texts = _sheet(experiment.columns, lines, beside_all=False)
    labels = [line.first["labels"] for line in lines]
    whole = [(*one.values(), *text) for one, text in zip(labels, texts, strict=True)]
    return [*labels[0], *headings], whole


def _caption(experiment: Experiment, config: Mapping[str, Any], rows: Rows) -> str:
    seeds = len({row["seed"] for row in rows})
    repeats = "1 seed" if seeds == 1 else f"{seeds} seeds, mean ± 95 % interval"
    data = ", ".join(dict.fromkeys(row["data"] for row in rows))
    here = f"measured: {data}, scale {config['scale']}, {rows[0]['machine']}, {repeats}"
    paper = f"paper: {experiment.note}" if experiment.note else ""
    return ".\n".join(filter(None, (experiment.legend, here, paper))) + "."
