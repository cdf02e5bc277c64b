"""Entries that were removed from tables, put back by flows that were trained without them."""

from itertools import product
from pathlib import Path

from pipelines.config import DataConfig
from pipelines.paper.config import FillConfig, PaperConfig
from pipelines.paper.experiments.cell import Cell, Column, Experiment
from pipelines.paper.experiments.settings import bounds

TABLES = ("breast-cancer", "wine", "diabetes")
"""The tables if no others are given."""

SECONDS, STEPS = 60.0, 6_000


def cells(config: PaperConfig) -> list[Cell]:
    """Returns one cell a table and seed."""
    ways = product(range(config.seeds or 1), config.sources or TABLES)
    return [_cell(config, *way) for way in ways]


def _cell(config: PaperConfig, seed: int, source: str) -> Cell:
    limits = bounds(config, cpu=SECONDS, full=STEPS)
    made = {"seconds": limits["max_seconds"], "steps": limits["steps"]}
    fill = FillConfig(seed=seed, threads=config.threads, **made)
    sizes = {name: getattr(config, name) for name in ("validation", "test", "rows")}
    method = f"ebflow.fit, {fill.share:.0%} of the entries removed"
    data = DataConfig(source=source, **sizes)
    return Cell({"table": Path(source).stem}, fill, seed, data, method=method)


MISSING = Experiment(
    about="CRPS of removed entries (columns' standard deviations): a flow's draws, a Gaussian's "
    "draws, its conditional mean",
    legend="a fifth of all entries removed at random, in training and in testing; Gaussian: of "
    "greatest likelihood given what is left; lead: the flow's over its draws and over its mean, "
    "entry by entry; ±: 95 %, over seeds, or test rows of one seed",
    note="",
    source=None,
    uses=frozenset(("sources", "seconds", "rows", "validation", "test", "seeds", "threads")),
    cells=cells,
    columns=(
        Column("study/crps_flow", "flow", 3, interval=False),
        Column("study/crps_gaussian", "Gaussian", 3, interval=False),
        Column("study/crps_gaussian_mean", "its mean", 3, interval=False),
        Column("study/lead_over_gaussian", "lead", 3, interval=False),
        Column(
            "study/lead_over_gaussian_mean",
            "over mean",
            3,
            error="study/lead_over_gaussian_mean_se",
        ),
    ),
)
