"""Entries that were removed from tables, put back by flows that were trained without them."""

from collections.abc import Iterator
from pathlib import Path

from pipelines.paper.config import FillConfig, PaperConfig
from pipelines.paper.experiments.cell import Cell, Column, Experiment
from pipelines.paper.experiments.settings import bounds, data

TABLES = ("breast-cancer", "wine", "diabetes")
"""The tables if no others are given."""

SECONDS, LENGTH = 60.0, 6_000
OVER_MEAN = "study/lead_over_gaussian_mean"


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell a table."""
    limits = bounds(config, cpu=SECONDS, full=LENGTH)
    fill = FillConfig(
        seed=seed, threads=config.threads, seconds=limits["max_seconds"], steps=limits["steps"]
    )
    method = f"ebflow.fit, {fill.share:.0%} of the entries removed"
    for source in config.sources or TABLES:
        labels = {"table": Path(source).stem}
        yield Cell(labels, fill, seed, data(config, source), method=method)


MISSING = Experiment(
    about="CRPS of removed entries (columns' standard deviations): a flow's draws, a Gaussian's "
    "draws, its conditional mean",
    legend="a fifth of all entries removed at random, in training and in testing; Gaussian: of "
    "greatest likelihood given what is left; lead: the flow's over its draws and over its mean, "
    "entry by entry; ±: 95 %, over seeds, or test rows of one seed",
    uses=frozenset(("sources", "seconds", "rows", "validation", "test", "seeds", "threads")),
    cells=cells,
    columns=(
        Column("study/crps_flow", "flow", 3, interval=False),
        Column("study/crps_gaussian", "Gaussian", 3, interval=False),
        Column("study/crps_gaussian_mean", "its mean", 3, interval=False),
        Column("study/lead_over_gaussian", "lead", 3, interval=False),
        Column(OVER_MEAN, "over mean", 3, error=f"{OVER_MEAN}_se"),
    ),
)
