"""What an experiment is: cells that are run, rows that are read off them, and how rows are shown.

A *cell* is one training and what is measured of it. Cells of equal labels differ by their seed
and are shown as one line: the mean and, where there are several, its 95 % interval. Where there
is one, that over the test rows, if the column names their standard error.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.config import ChainConfig, ClusterConfig, DataConfig, DensityConfig, Section
from pipelines.paper.config import PaperConfig
from pipelines.reporting.claims import Conclusion
from pipelines.reporting.method import method
from pipelines.reporting.pages import machine
from pipelines.reporting.statistics import Interval, student
from pipelines.reporting.style import Captioned

IMAGE_OPTIONS = frozenset(
    ("source", "seconds", "rows", "validation", "test", "seed", "seeds", "threads", "cluster")
)
"""The options that most experiments use, on images."""

NORMAL = 1.96
"""Standard errors of half of a 95 % interval."""

Folders = Sequence[Path]
"""What a cell's stages wrote: training and measurement, or both in one."""

BASELINES = {
    "gaussian": ("Gaussian", "full-covariance Gaussian by maximum likelihood"),
    "mixture": ("mixture", "mixture of Gaussians behind the Gaussian's whitening, by expectation "
                "maximization; its size by validation"),
}  # fmt: skip
"""By their names in metrics, what a table's first column and its last say of them."""

UNKNOWN = Interval(math.nan, math.nan, math.nan)

Row = dict[str, Any]
"""``labels``, ``seed``, ``published``, ``data``, ``machine``, ``method``, metrics; and ``overlap``
(:func:`pipelines.reporting.statistics.student`) where seeds split the same rows anew."""


@dataclass(frozen=True)
class Cell:
    """One training of an experiment, and what is measured of it.

    Attributes:
        labels: What tells it from others, by the headings of the table's first columns.
        config: That of a flow, or of the stage that trains and measures by itself.
        seed: Its seed, or the first of them.
        data: The data, if it has any.
        chain: The chain in front, if that is fitted apart.
        measure: What is measured of a flow: the configuration of a stage.
        method: How it is made; one line.
        published: Published numbers by metric.
    """

    labels: Mapping[str, str]
    config: Section
    seed: int = 0
    data: DataConfig | None = None
    chain: ChainConfig | None = None
    measure: Section | None = None
    method: str = ""
    published: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of_flow(cls, labels: Mapping[str, str], config: DensityConfig, **more: Any) -> "Cell":  # noqa: ANN401
        """Returns the training of a flow, measured by its likelihood if nothing else is said."""
        given = {"chain": config.training.chain, "measure": config.evaluate, **more}
        return cls(labels, config, config.seed, config.data, method=method(config), **given)

    @property
    def title(self) -> str:
        """What tells its runs from those of other cells: labels and seed."""
        return f"{' '.join(filter(None, self.labels.values()))}, seed {self.seed}"

    def on(self, cluster: ClusterConfig) -> "Cell":
        """Returns the same cell, a flow trained once and by the workers of ``cluster``."""
        if self.measure is None:
            return self
        return replace(self, config=self.config.once.changed(cluster=cluster))

    def row(self, folders: Folders) -> Row:
        """Returns what is shown of it; without metrics if it is not for such data."""
        trained = folders[0] / "training.json"
        metrics = json.loads(trained.read_text())["metrics"] if self.measure else {}
        scores = json.loads((folders[-1] / "evaluation.json").read_text())
        return {**self.provenance(), **metrics, **scores}

    def lost(self, line: str) -> Row:
        """Returns what is shown of it if it diverged, and how it did."""
        return {**self.provenance(), "diverged": line, "method": f"{self.method}; {line}"}

    def provenance(self) -> Row:
        """Returns what tells it from others, where and how it was made."""
        return {
            "labels": dict(self.labels),
            "seed": self.seed,
            "published": dict(self.published),
            "data": Path(self.data.source).stem if self.data else "random",
            "machine": machine(),
            "method": self.method,
        }


@dataclass(frozen=True)
class Column:
    """A metric in the table.

    Attributes:
        metric: Its key in a row.
        heading: What stands above it, with its unit.
        digits: Decimals.
        baseline: The key of the same of a baseline, if there is one, ``{}`` in the place of its
            name.
        interval: Whether its interval is shown where there are several seeds.
        error: The key of its standard error over the test rows, which is shown where there is
            one seed.
    """

    metric: str
    heading: str
    digits: int = 1
    baseline: str | None = None
    interval: bool = True
    error: str | None = None


STEPS = Column("train/steps", "steps", 0, interval=False)
STEPS_PER_S = Column("train/steps_per_s", "steps/s", interval=False)
NLL = Column("test/nll", "NLL", 1, "baseline/{}_nll")


def first_seed(rows: Sequence[Row], *beside: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """Yields the rows of the first seed, which pictures are of, with what stands beside them."""
    found = zip(rows, *beside, strict=True)
    return (one for one in found if one[0]["seed"] == rows[0]["seed"])


@dataclass(frozen=True)
class Experiment:
    """An experiment of the paper.

    Attributes:
        about: What its table shows; one line.
        legend: What a reader of the table has to know of the settings.
        cells: From the configuration and a seed to the cells of that seed.
        columns: The metrics of the table, behind the labels.
        note: What the published numbers are, if there are any.
        source: The paper's data set of images; None where the experiment has its own data.
        uses: The options of ``PaperConfig`` that change it, besides experiment, scale and name.
        seeds: How many there are at a scale, if none are asked for; else one.
        rows: From the cells and their folders to rows; one a cell, if not told otherwise.
        figures: From rows and the cells' folders to figures by name, with what they show.
        conclude: From the cells' folders to findings, claims and checks, if it has any.
    """

    about: str
    legend: str
    cells: Callable[[PaperConfig, int], Iterable[Cell]]
    columns: tuple[Column, ...]
    note: str = ""
    source: str | None = None
    uses: frozenset[str] = IMAGE_OPTIONS
    seeds: Mapping[str, int] = field(default_factory=dict)
    rows: Callable[[Sequence[Cell], Sequence[Folders]], list[Row]] = lambda cells, folders: [
        cell.row(found) for cell, found in zip(cells, folders, strict=True)
    ]
    figures: Callable[[Sequence[Row], Sequence[Folders]], dict[str, Captioned]] = lambda *_: {}
    conclude: Callable[[Sequence[Folders]], Conclusion] = lambda folders: Conclusion()

    def placed(self, config: PaperConfig) -> list[Cell]:
        """Returns the cells, seed by seed, trained by the configured workers."""
        count = config.seeds or self.seeds.get(config.scale, 1)
        seeds = range(config.seed, config.seed + count)
        return [cell.on(config.cluster) for seed in seeds for cell in self.cells(config, seed)]


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Attributes:
        rows: All rows of the same labels.
    """

    rows: Sequence[Row]

    @property
    def first(self) -> Row:
        """The row that is told of all of them: one that diverged, if there is one."""
        return next((row for row in self.rows if "diverged" in row), self.rows[0])

    @property
    def name(self) -> str:
        """Its labels."""
        return ", ".join(filter(None, self.first["labels"].values()))

    def value(self, column: Column) -> Interval:
        """Returns the mean with Student's 95 % interval over seeds, or over rows of a single one.

        Its ends are NaN without one, and where it is not shown.
        """
        values = [row.get(column.metric) for row in self.rows]
        if None in values:
            return UNKNOWN
        found = student(values, overlap=self.first.get("overlap", 0.0)).interval()
        error = self.first.get(column.error)
        if len(values) == 1 and error is not None:
            half = NORMAL * error
            return Interval(found.value, found.value - half, found.value + half)
        return found if column.interval else UNKNOWN._replace(value=found.value)


def summarize(columns: Sequence[Column], rows: Sequence[Row]) -> list[Line]:
    """Returns the lines of a table; the first are the baselines', if a column has one."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in (*_baselines(columns, rows), *rows):
        groups.setdefault(tuple(row["labels"].values()), []).append(row)
    return [Line(group) for group in groups.values()]


def _baselines(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[Row]:
    """Yields what is shown of the baselines that the rows have; of the mixture, its best."""
    for what, (label, about) in BASELINES.items():
        keys = {c.metric: c.baseline.format(what) for c in columns if c.baseline}
        known = [row for row in rows if keys and row.keys() >= {*keys.values()}]
        if known:
            best = min(known, key=lambda row: [row[key] for key in keys.values()])
            first, *others = best["labels"]
            labels = {first: label, **dict.fromkeys(others, "")}
            values = {metric: best[key] for metric, key in keys.items()}
            yield {
                "labels": labels, "published": {}, "data": best["data"], "method": about, **values
            }  # fmt: skip
