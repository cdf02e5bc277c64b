"""Experiments on tables.

``TABLES``: the recipe beside densities of other packages, table by table, at equal seconds. Each
seed splits the rows anew. ``MISSING``: removed entries, imputed by flows trained without them.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ebflow.errors import BadInput
from pipelines.config.recipes import tabular
from pipelines.config.source import overlap
from pipelines.paper.config import FillConfig, PaperConfig
from pipelines.paper.experiments import cell
from pipelines.paper.experiments.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.experiments.rivals import gain, peer, suitable, with_curve
from pipelines.reporting.statistics import student

SECONDS = 30.0
LENGTH = 40_000
RECIPE = "recipe"
PEERS = ("gmm", "maf", "nsf")


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per table and density."""
    for source, name in zip(config.sources, _names(config.sources), strict=True):
        flow = cell.base(config, seed, source, cpu=SECONDS, full=LENGTH, recipe=tabular)
        flow = flow.changed(data={"seed": seed})
        yield Cell.of_flow({"table": name, "density": RECIPE}, flow)
        for other in PEERS:
            yield peer(config, {"table": name, "density": other}, other, flow, SECONDS)


def _names(sources: Sequence[str]) -> list[str]:
    """Returns the names of the tables; raises BadInput if there is none, or two are equal."""
    if not sources:
        raise BadInput("--sources: found none, expected .parquet files of tables")
    names = [Path(source).stem for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"--sources: found two tables called {twice}, expected names of their own")
    return names


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns one row per table and seed: the NLL of every density, and the recipe's lead.

    The lead is over the best peer by the mean test NLL over seeds, test row by test row.
    """
    tables: dict[str, dict[int, dict[str, Finished]]] = {}
    for one in suitable(finished):
        table, density = one.cell.labels.values()
        tables.setdefault(table, {}).setdefault(one.cell.seed, {})[density] = one
    return [row for table, seeds in tables.items() for row in _rows(table, [*seeds.values()])]


def _rows(table: str, seeds: Sequence[Mapping[str, Finished]]) -> Iterator[Row]:
    """Yields the rows of a table, of the seeds whose recipe did not diverge."""
    nlls = [{name: one.row["test/nll"] for name, one in found.items()} for found in seeds]
    means = pd.DataFrame(nlls).mean().drop(RECIPE, errors="ignore")
    best = None if means.empty else means.idxmin()
    complete = [found for found in seeds if RECIPE in found]
    shared = overlap(next(iter(seeds[0].values())).cell.data)
    leads = [
        found[RECIPE].log_probs - found[best].log_probs for found in complete if best in found
    ]
    for found in complete:
        recipe = found[RECIPE]
        row = {**with_curve(recipe), **gain(recipe, found.get(best), "lead")}
        row |= {"labels": {"table": table, "ahead": _ahead(leads, best, shared)}, "best": best}
        for name, one in found.items():
            row |= {name: one.row["test/nll"], f"{name}/se": one.row["test/nll_se"],
                    f"{name}/seconds": one.row["time/train_s"]}  # fmt: skip
        yield {**row, "gaussian": recipe.row["baseline/gaussian_nll"], "overlap": shared}


def _ahead(leads: Sequence[np.ndarray], best: str | None, overlap: float) -> str:
    """Returns the density that is ahead; "not decided" if the interval of the lead holds 0.

    The interval is over seeds, or over the test rows of a single seed.
    """
    if not leads:
        return ""
    single = len(leads) == 1
    units = leads[0] if single else [lead.mean() for lead in leads]
    _, low, high = student(units, overlap=0.0 if single else overlap).interval()
    if low <= 0 <= high:
        return "not decided"
    return RECIPE if low > 0 else best


TABLES = Experiment(
    about="exact test NLL (nats) of tables: the recipe, and other packages at equal seconds",
    legend="gmm: scikit-learn's mixture of Gaussians, its number by validation; maf, nsf: zuko's; "
    "lead: the recipe's over the best of them, row by row; ±: 95 %, over seeds, each with a split "
    "of its own (as Nadeau and Bengio, 2003), or test rows of one seed; ahead: which is, where "
    "that leaves out 0",
    uses=cell.IMAGE_OPTIONS - {"source"} | {"sources"},
    cells=cells,
    columns=(
        *(Column(name, name, 2, interval=False) for name in (RECIPE, *PEERS)),
        Column("gaussian", "Gaussian", 2, interval=False),
        Column("lead", "lead", 2, error="lead_se"),
    ),
    rows=rows,
)

BUNDLED = ("breast-cancer", "wine", "diabetes")
"""The default tables of ``MISSING``."""


def filled(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per table."""
    bounds = cell.limits(config, cpu=60.0, full=6_000)
    fill = FillConfig(
        seed=seed, threads=config.threads, seconds=bounds["max_seconds"], steps=bounds["steps"]
    )
    method = f"ebflow.fit, {fill.share:.0%} of the entries removed"
    for source in config.sources or BUNDLED:
        labels = {"table": Path(source).stem}
        yield Cell(labels, fill, seed, cell.data(config, source), method=method)


MISSING = Experiment(
    about="CRPS of removed entries (columns' standard deviations): a flow's samples, a Gaussian's "
    "samples, its conditional mean",
    legend="a fifth of all entries removed at random, in training and in testing; Gaussian: of "
    "greatest likelihood given what is left; lead: the flow's over its samples and over its mean, "
    "entry by entry; ±: 95 %, over seeds, or test rows of one seed",
    uses=frozenset(("sources", "seconds", "rows", "validation", "test", "seeds", "threads")),
    cells=filled,
    columns=(
        Column("study/crps_flow", "flow", 3, interval=False),
        Column("study/crps_gaussian", "Gaussian", 3, interval=False),
        Column("study/crps_gaussian_mean", "its mean", 3, interval=False),
        Column("study/lead_over_gaussian", "lead", 3, interval=False),
        Column(
            "study/lead_over_gaussian_mean",
            "over mean", 3, error="study/lead_over_gaussian_mean_se",
        ),
    ),
)  # fmt: skip
