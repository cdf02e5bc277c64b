"""From the cells of an experiment to its table, figures and page, beside published numbers."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ebflow.errors import NonFinite
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments import EXPERIMENTS
from pipelines.paper.experiments.cell import NORMAL, Cell, Column, Finished, Row
from pipelines.reporting.result import Result, Table, plots, plus_minus
from pipelines.reporting.statistics import Interval, student
from pipelines.tracking.run import StageRun

INTRO = (
    "NLL is in nats an example, in units of the raw data. Below scale full published and measured "
    "numbers are no reproduction of each other."
)

BASELINES = {
    "gaussian": ("Gaussian", "full-covariance Gaussian by maximum likelihood"),
    "mixture": ("mixture", "mixture of Gaussians behind the Gaussian's whitening, by expectation "
                "maximization; its size by validation"),
}  # fmt: skip
"""Label and method of baselines, by their names in metrics."""

UNKNOWN = Interval(math.nan, math.nan, math.nan)


def compare(
    config: PaperConfig, outcomes: Sequence[Sequence[Path] | str], *, run: StageRun
) -> None:
    """Saves the result of an experiment; cells that diverged come last.

    An outcome is the folders of a cell's stages, or the message of its divergence.
    """
    experiment = EXPERIMENTS[config.experiment]
    pairs = list(zip(experiment.all_cells(config), outcomes, strict=True))
    finished = [Finished(cell, out) for cell, out in pairs if not isinstance(out, str)]
    if not finished:
        raise NonFinite(f"every cell diverged, the first: {outcomes[0]}")
    rows = experiment.rows(finished)
    shown = [*rows, *(diverged(cell, out) for cell, out in pairs if isinstance(out, str))]
    Result(
        title=f"{config.experiment}: {experiment.about}",
        intro=INTRO,
        conclusion=experiment.conclude(finished),
        headline=headline(config, shown),
        sections=[*plots(experiment.figures(rows, finished)), settings(shown)],
        values={"rows": shown},
    ).save(config, run)


def diverged(cell: Cell, message: str) -> Row:
    """Returns the row of a cell that diverged."""
    return {**cell.provenance(), "diverged": message, "method": f"{cell.method}; {message}"}


@dataclass(frozen=True)
class Line:
    """A line of the table: the rows with equal labels, one per seed."""

    rows: Sequence[Row]

    @property
    def first(self) -> Row:
        """The row that stands for all: one that diverged, if there is one."""
        return next((row for row in self.rows if "diverged" in row), self.rows[0])

    @property
    def name(self) -> str:
        """The labels."""
        return ", ".join(filter(None, self.first["labels"].values()))

    def value(self, column: Column) -> Interval:
        """Returns the mean with its 95 % interval over seeds, or over test rows of a single seed.

        The ends are NaN if there is no interval, or if the column shows none.
        """
        values = [row.get(column.metric) for row in self.rows]
        if None in values:
            return UNKNOWN
        interval = student(values, overlap=self.first.get("overlap", 0.0)).interval()
        error = self.first.get(column.error)
        if len(values) == 1 and error is not None:
            half = NORMAL * error
            return Interval(interval.value, interval.value - half, interval.value + half)
        return interval if column.interval else UNKNOWN._replace(value=interval.value)


def summarize(columns: Sequence[Column], rows: Sequence[Row]) -> list[Line]:
    """Returns the lines of a table; the first ones are baselines, if a column has one."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in (*_baselines(columns, rows), *rows):
        groups.setdefault(tuple(row["labels"].values()), []).append(row)
    return [Line(group) for group in groups.values()]


def _baselines(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[Row]:
    """Yields the best of each baseline that the rows have."""
    for baseline, (label, method) in BASELINES.items():
        keys = {c.metric: c.baseline.format(baseline) for c in columns if c.baseline}
        measured = [row for row in rows if keys and row.keys() >= {*keys.values()}]
        if measured:
            best = min(measured, key=lambda row: [row[key] for key in keys.values()])
            first, *others = best["labels"]
            labels = {first: label, **dict.fromkeys(others, "")}
            values = {metric: best[key] for metric, key in keys.items()}
            yield {
                "labels": labels, "published": {}, "data": best["data"], "method": method, **values
            }  # fmt: skip


def headline(config: PaperConfig, rows: Sequence[Row]) -> Table:
    """Returns the numbers of all lines beside the published ones, without empty columns."""
    experiment = EXPERIMENTS[config.experiment]
    lines = summarize(experiment.columns, rows)
    texts = {
        column: [plus_minus(line.value(column), column.digits) for line in lines]
        for column in experiment.columns
    }
    shown = {column: values for column, values in texts.items() if any(values)} or texts
    last = [*shown][-1]
    shown[last] = [
        "diverged" if "diverged" in line.first else text
        for line, text in zip(lines, shown[last], strict=True)
    ]
    labels = lines[0].first["labels"]
    columns = [
        *((name, *(line.first["labels"][name] for line in lines)) for name in labels),
        *((column.heading, *values) for column, values in shown.items()),
    ]
    published = [line.first["published"].get(last.metric) for line in lines]
    if any(published):
        numbers = ("" if one is None else f"{one:.{last.digits}f}" for one in published)
        columns.append(("paper", *numbers))
    headings, *cells = zip(*columns, strict=True)
    return Table(experiment.about, headings, cells, _caption(config, rows))


def settings(rows: Sequence[Row]) -> Table:
    """Returns data, number of seeds and training of each line."""
    lines = summarize((), rows)
    cells = [
        (line.name, line.first["data"], str(len(line.rows)), line.first["method"])
        for line in lines
    ]
    return Table("Settings", ("", "data", "seeds", "training"), cells)


def _caption(config: PaperConfig, rows: Sequence[Row]) -> str:
    experiment = EXPERIMENTS[config.experiment]
    seeds = len({row["seed"] for row in rows})
    repeats = "1 seed" if seeds == 1 else f"{seeds} seeds, mean ± 95 % interval"
    data = ", ".join(dict.fromkeys(row["data"] for row in rows))
    here = f"measured: {data}, scale {config.scale}, {rows[0]['machine']}, {repeats}"
    paper = f"paper: {experiment.note}" if experiment.note else ""
    return ".\n".join(filter(None, (experiment.legend, here, paper))) + "."
