"""From the cells of an experiment to its table, figures and page, beside published numbers.

Source of settings and published numbers: Training Energy-Based Normalizing Flow with
Score-Matching Objectives (Chao, Sun, Hsu, Kira, Lee, 2023), arXiv:2305.15267, and its code.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ebflow.errors import NonFinite
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments.ablation import ABLATION
from pipelines.paper.experiments.curves import CURVES
from pipelines.paper.experiments.formulas import FORMULAS
from pipelines.paper.experiments.glow import GLOW
from pipelines.paper.experiments.inpainting import INPAINTING
from pipelines.paper.experiments.matrices import MATRICES
from pipelines.paper.experiments.phases import PHASES
from pipelines.paper.experiments.plane import PLANE
from pipelines.paper.experiments.rivals import RIVALS
from pipelines.paper.experiments.runtime import RUNTIME
from pipelines.paper.jobs import DETECTION, MISSING
from pipelines.paper.rivals import TABLES
from pipelines.paper.table import COLOUR_TABLE, TABLE
from pipelines.reporting.page import machine
from pipelines.reporting.result import Result, Table, plots, plus_minus, unequal_steps
from pipelines.reporting.statistics import student

if TYPE_CHECKING:
    from pipelines.tracking.run import StageRun

EXPERIMENTS: dict[str, Experiment] = {
    "table": TABLE,
    "colour-table": COLOUR_TABLE,
    "tables": TABLES,
    "missing": MISSING.experiment,
    "detection": DETECTION.experiment,
    "plane": PLANE,
    "matrices": MATRICES,
    "runtime": RUNTIME,
    "ablation": ABLATION,
    "glow": GLOW,
    "inpainting": INPAINTING,
    "curves": CURVES,
    "rivals": RIVALS,
    "phases": PHASES,
    "formulas": FORMULAS,
}

INTRO = (
    "NLL is in nats an example, in units of the raw data. Below scale full published and measured "
    "numbers are no reproduction of each other."
)

SMOKE = "scale smoke only shows that everything runs: its numbers and verdicts mean nothing"

MOST_NAMES = 14  # Data sets that the text below a table names
NORMAL = 1.96  # Standard errors in half of a 95 % interval


def compare(
    config: PaperConfig, outcomes: Sequence[Mapping[str, Path] | str], *, run: "StageRun"
) -> None:
    """Saves the result of an experiment; cells that diverged come last.

    An outcome is the folders of a cell's stages, or the message of its divergence.
    """
    experiment = EXPERIMENTS[config.experiment]
    pairs = list(zip(experiment.all_cells(config), outcomes, strict=True))
    finished = [Finished(cell, out) for cell, out in pairs if not isinstance(out, str)]
    diverged = [(cell, out) for cell, out in pairs if isinstance(out, str)]
    if not finished:
        raise NonFinite(f"every cell diverged, the first: {outcomes[0]}")
    rows = experiment.rows(finished)
    shown = [*rows, *_diverged(diverged, rows[0]["labels"])]
    Result(
        title=f"{config.experiment}: {experiment.about}",
        intro=INTRO,
        conclusion=experiment.conclude(finished),
        warnings=[
            *([SMOKE] if config.scale == "smoke" else []),
            *(f"{cell.title} diverged: {message}" for cell, message in diverged),
            *unequal_steps(rows),
        ],
        headline=headline(config, shown),
        sections=[*plots(experiment.figures(rows, finished)), *experiment.tables(rows)],
        values={"rows": shown},
    ).save(config, run)


def _diverged(cells: Sequence[tuple[Cell, str]], labels: Mapping[str, str]) -> Iterator[Row]:
    """Yields rows of cells that diverged, if they are lines of the table."""
    for cell, message in cells:
        if cell.labels.keys() == labels.keys():
            yield {**cell.provenance(), "diverged": message}


def headline(config: PaperConfig, rows: Sequence[Row]) -> Table:
    """Returns the numbers of all lines beside the published ones, without empty columns."""
    experiment = EXPERIMENTS[config.experiment]
    columns = [c for c in experiment.columns if any(row.get(c.metric) is not None for row in rows)]
    columns = columns or experiment.columns
    published = any(row["published"] for row in rows)
    lines = summarize(rows)
    headings = [*lines[0][0]["labels"], *(column.heading for column in columns)]
    names = [*dict.fromkeys(row["data"] for row in rows)]
    data = ", ".join(names) if len(names) <= MOST_NAMES else f"{len(names)} data sets"
    seeds = len({cell.seed for cell in experiment.all_cells(config)})
    here = f"measured: {data}, scale {config.scale}, {machine()}, seeds: {seeds}"
    return Table(
        experiment.about,
        [*headings, "paper"] if published else headings,
        [_texts(line, columns, published=published) for line in lines],
        f"{experiment.legend}.\n{here}.",
    )


def summarize(rows: Sequence[Row]) -> list[list[Row]]:
    """Returns the rows of each line of a table, one per seed.

    The first row of a line stands for all: it is one that diverged, if there is one.
    """
    lines: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        lines.setdefault(tuple(row["labels"].values()), []).append(row)
    return [sorted(line, key=lambda row: "diverged" not in row) for line in lines.values()]


def _texts(line: Sequence[Row], columns: Sequence[Column], *, published: bool) -> list[str]:
    """Returns labels and values; "diverged" is the last value of a line that diverged."""
    first, texts = line[0], [text(line, column) for column in columns]
    if "diverged" in first:
        texts[-1] = "diverged"
    if published:
        number = first["published"]
        texts.append("" if number is None else f"{number:.{columns[-1].digits}f}")
    return [*first["labels"].values(), *texts]


def text(line: Sequence[Row], column: Column) -> str:
    """Returns the mean with its 95 % interval over seeds, or over test rows of a single seed."""
    values = [row.get(column.metric) for row in line]
    if None in values:
        return ""
    mean, _, high = student(values, overlap=line[0].get("overlap", 0.0)).interval()
    error = line[0].get(f"{column.metric}_se")
    if len(values) == 1 and error is not None:
        high = mean + NORMAL * error
    return plus_minus((mean, None, high if column.interval else None), column.digits)
