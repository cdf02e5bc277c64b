"""Tables: the recipe beside other packages' densities, table by table, at equal seconds; and what
was removed from them, put back by flows that were trained without it.

Each seed of the former splits the rows anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ebflow.errors import BadInput
from pipelines.config.recipes import tabular
from pipelines.config.source import overlap
from pipelines.paper.config import FillConfig, PaperConfig
from pipelines.paper.experiments.cell import IMAGE_OPTIONS, Cell, Column, Experiment, Folders, Row
from pipelines.paper.experiments.compared import LOG_PROBS, measured, peer, with_gain
from pipelines.paper.experiments.settings import base, bounds, data
from pipelines.reporting.statistics import student

SECONDS = 30.0
LENGTH = 40_000
RECIPE = "recipe"
PEERS = ("gmm", "maf", "nsf")


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell a table and density.

    Raises:
        BadInput: if there is no table, or two are called alike.
    """
    if not config.sources:
        raise BadInput("--sources: found none, expected .parquet files of tables")
    names = [Path(source).stem for source in config.sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"--sources: found two tables called {twice}, expected names of their own")
    for source, name in zip(config.sources, names, strict=True):
        flow = base(config, seed, source, cpu=SECONDS, full=LENGTH, recipe=tabular)
        flow = flow.changed(data={"seed": seed})
        yield Cell.of_flow({"table": name, "density": RECIPE}, flow)
        for other in PEERS:
            labels = {"table": name, "density": other}
            yield peer(config, labels, other, flow, SECONDS)


def rows(cells: Sequence[Cell], folders: Sequence[Folders]) -> list[Row]:
    """Returns one row a table and seed: the NLL of every density, and the recipe's lead.

    That is over the best peer by the mean test NLL over seeds, test row by test row.
    """
    tables: dict[str, dict[int, dict[str, Row]]] = {}
    for row in measured(cells, folders):
        table, density = row["labels"].values()
        tables.setdefault(table, {}).setdefault(row["seed"], {})[density] = row
    overlaps = {cell.labels["table"]: overlap(cell.data) for cell in cells if cell.measure}
    return [
        row
        for table, seeds in tables.items()
        for row in _rows(table, [*seeds.values()], overlaps[table])
    ]


def _rows(table: str, seeds: Sequence[Mapping[str, Row]], overlap: float) -> Iterator[Row]:
    """Yields the rows of a table, of the seeds that the recipe has."""
    nlls = [{name: row["test/nll"] for name, row in found.items()} for found in seeds]
    means = pd.DataFrame(nlls).mean().drop(RECIPE, errors="ignore")
    best = None if means.empty else means.idxmin()
    whole = [found for found in seeds if RECIPE in found]
    leads = [found[RECIPE][LOG_PROBS] - found[best][LOG_PROBS] for found in whole if best in found]
    for found in whole:
        shown = with_gain(found[RECIPE], found.get(best), "lead")
        shown |= {"labels": {"table": table, "ahead": _ahead(leads, best, overlap)}, "best": best}
        for name, row in found.items():
            shown |= {name: row["test/nll"], f"{name}/se": row["test/nll_se"],
                      f"{name}/seconds": row["time/train_s"]}  # fmt: skip
        yield {**shown, "gaussian": found[RECIPE]["baseline/gaussian_nll"], "overlap": overlap}


def _ahead(leads: Sequence[np.ndarray], best: str | None, overlap: float) -> str:
    """Returns which density is ahead; ``not told`` if the interval of the lead holds 0.

    It is over seeds, or over the test rows of a single one.
    """
    if not leads:
        return ""
    alone = len(leads) == 1
    units = leads[0] if alone else [lead.mean() for lead in leads]
    _, low, high = student(units, overlap=0.0 if alone else overlap).interval()
    if low <= 0 <= high:
        return "not told"
    return RECIPE if low > 0 else best


TABLES = Experiment(
    about="exact test NLL (nats) of tables: the recipe, and other packages at equal seconds",
    legend="gmm: scikit-learn's mixture of Gaussians, its number by validation; maf, nsf: zuko's; "
    "lead: the recipe's over the best of them, row by row; ±: 95 %, over seeds, each with a split "
    "of its own (as Nadeau and Bengio, 2003), or test rows of one seed; ahead: which is, where "
    "that leaves out 0",
    uses=IMAGE_OPTIONS - {"source"} | {"sources"},
    cells=cells,
    columns=(
        Column(RECIPE, RECIPE, 2, interval=False),
        *(Column(name, name, 2, interval=False) for name in PEERS),
        Column("gaussian", "Gaussian", 2, interval=False),
        Column("lead", "lead", 2, error="lead_se"),
    ),
    rows=rows,
)

BUNDLED = ("breast-cancer", "wine", "diabetes")
"""The tables if no others are given."""

FILL_SECONDS, FILL_LENGTH = 60.0, 6_000
OVER_MEAN = "study/lead_over_gaussian_mean"


def filled(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell a table."""
    limits = bounds(config, cpu=FILL_SECONDS, full=FILL_LENGTH)
    fill = FillConfig(
        seed=seed, threads=config.threads, seconds=limits["max_seconds"], steps=limits["steps"]
    )
    method = f"ebflow.fit, {fill.share:.0%} of the entries removed"
    for source in config.sources or BUNDLED:
        labels = {"table": Path(source).stem}
        yield Cell(labels, fill, seed, data(config, source), method=method)


MISSING = Experiment(
    about="CRPS of removed entries (columns' standard deviations): a flow's draws, a Gaussian's "
    "draws, its conditional mean",
    legend="a fifth of all entries removed at random, in training and in testing; Gaussian: of "
    "greatest likelihood given what is left; lead: the flow's over its draws and over its mean, "
    "entry by entry; ±: 95 %, over seeds, or test rows of one seed",
    uses=frozenset(("sources", "seconds", "rows", "validation", "test", "seeds", "threads")),
    cells=filled,
    columns=(
        Column("study/crps_flow", "flow", 3, interval=False),
        Column("study/crps_gaussian", "Gaussian", 3, interval=False),
        Column("study/crps_gaussian_mean", "its mean", 3, interval=False),
        Column("study/lead_over_gaussian", "lead", 3, interval=False),
        Column(OVER_MEAN, "over mean", 3, error=f"{OVER_MEAN}_se"),
    ),
)
