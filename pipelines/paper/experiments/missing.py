"""Entries that were removed from tables, put back by flows that were trained without them."""

__all__ = ["MISSING", "TABLES", "FillCell", "cells"]

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.config import ClusterConfig, DataConfig, FillConfig, PaperConfig
from pipelines.paper.experiments.cell import Column, Experiment, Folders, Row, told
from pipelines.paper.experiments.settings import bounds

TABLES = ("breast-cancer", "wine", "diabetes")
"""The tables if no others are given."""

SECONDS, STEPS = 60.0, 6_000


@dataclass(frozen=True)
class FillCell:
    """A flow of a table with holes, trained and measured by one stage.

    Attributes:
        labels: As of a ``Cell``.
        config: How much is removed, and how long is trained.
        data: The table.
    """

    labels: Mapping[str, str]
    config: FillConfig
    data: DataConfig

    @property
    def title(self) -> str:
        """What tells its run from those of other tables and seeds."""
        return f"{self.labels['table']}, seed {self.config.seed}"

    def on(self, cluster: ClusterConfig) -> "FillCell":
        """Returns itself: it is trained in one process."""
        return self

    def row(self, folders: Folders) -> Row:
        """Returns what is shown of it."""
        scores = json.loads((folders[0] / "evaluation.json").read_text())
        return {**self._told(), **scores}

    def lost(self, line: str) -> Row:
        """Returns what is shown of it if it diverged, and how it did."""
        return {**self._told(), "diverged": line}

    def _told(self) -> Row:
        method = f"ebflow.fit, {self.config.share:.0%} of the entries removed"
        return told(self.labels, self.config.seed, self.data, method)


def cells(config: PaperConfig) -> list[FillCell]:
    """Returns one cell a table and seed."""
    limits = bounds(config, cpu=SECONDS, full=STEPS)
    made = {"seconds": limits["max_seconds"], "steps": limits["steps"], "threads": config.threads}
    sizes = {name: getattr(config, name) for name in ("validation", "test", "rows")}
    return [
        FillCell(
            {"table": Path(source).stem},
            FillConfig(seed=seed, **made),
            DataConfig(source=source, **sizes),
        )
        for seed in range(config.seeds)
        for source in config.sources or TABLES
    ]


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
