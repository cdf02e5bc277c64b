"""The recipe for tables beside other packages' densities, table by table, at equal seconds."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ebflow.errors import BadInput
from ebflow.inference import student
from pipelines.config.recipes import tabular
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments.cell import Cell, Column, Experiment, Folders, Row
from pipelines.paper.experiments.gains import LOG_PROBS, measured, with_gain
from pipelines.paper.experiments.peers import peer
from pipelines.paper.experiments.settings import IMAGE_OPTIONS, bounds, data
from pipelines.reporting.style import panels

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
    names = Counter(Path(source).stem for source in config.sources)
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        raise BadInput(f"--sources: found two tables called {twice}, expected names of their own")
    limits = {**bounds(config, cpu=SECONDS, full=LENGTH), "threads": config.threads}
    for source, name in zip(config.sources, names, strict=True):
        flow = tabular().changed(seed=seed, data=data(config, source), train=limits)
        yield Cell.of_flow({"table": name, "density": RECIPE}, flow)
        for other in PEERS:
            labels = {"table": name, "density": other}
            yield peer(config, labels, other, flow, SECONDS)


def rows(cells: Sequence[Cell], folders: Sequence[Folders]) -> list[Row]:
    """Returns one row a table and seed: the NLL of every density, and the recipe's lead.

    That is over the best peer by the mean test NLL over seeds, test row by test row.
    """
    found: dict[str, dict[str, dict[int, Row]]] = {}
    for _, row in measured(cells, folders):
        table, density = row["labels"].values()
        found.setdefault(table, {}).setdefault(density, {})[row["seed"]] = row
    return [row for densities in found.values() for row in _rows(densities)]


def _rows(densities: Mapping[str, Mapping[int, Row]]) -> Iterator[Row]:
    """Yields the rows of a table, of the seeds that the recipe has."""
    means = {
        name: float(np.mean([row["test/nll"] for row in seeds.values()]))
        for name, seeds in densities.items()
    }
    best = min((name for name in PEERS if name in means), key=means.__getitem__, default=None)
    for seed, row in densities.get(RECIPE, {}).items():
        beside = {name: seeds[seed] for name, seeds in densities.items() if seed in seeds}
        shown = with_gain(row, beside.get(best), "lead")
        shown["labels"] = {"table": row["labels"]["table"], "ahead": _verdict(densities, best)}
        for name, other in beside.items():
            shown |= {name: other["test/nll"], f"{name}/se": other["test/nll_se"],
                      f"{name}/seconds": other["time/train_s"]}  # fmt: skip
        yield {**shown, "gaussian": row["baseline/gaussian_nll"], "best": best}


def _verdict(densities: Mapping[str, Mapping[int, Row]], best: str | None) -> str:
    """Returns which density is ahead; ``level`` if the interval of the lead holds 0.

    It is over seeds, or over the test rows of a single one.
    """
    if best is None:
        return ""
    ours, theirs = densities[RECIPE], densities[best]
    leads = [ours[seed][LOG_PROBS] - theirs[seed][LOG_PROBS] for seed in ours if seed in theirs]
    found = student(leads[0] if len(leads) == 1 else [lead.mean() for lead in leads])
    _, low, high = found.interval()
    if low <= 0 <= high:
        return "level"
    return RECIPE if found.value > 0 else best


def figures(rows: Sequence[Row], folders: Sequence[Folders]) -> dict[str, Figure]:
    """Returns each density's mean NLL less the recipe's, table by table."""
    tables = list(dict.fromkeys(row["labels"]["table"] for row in rows))
    figure, axis = panels(height=1.2 + 0.42 * len(tables))
    for marker, name in zip("os^D", (*PEERS, "gaussian"), strict=True):
        behind = [_behind(rows, table, name) for table in tables]
        axis.plot(behind, range(len(tables)), marker, color="0.25", mfc="none", label=name)
    axis.axvline(0, color="black", lw=1)
    axis.set_yticks(range(len(tables)), tables)
    axis.invert_yaxis()
    axis.set_xscale("symlog", linthresh=1.0)
    axis.set_xlabel("NLL less the recipe's (nats; right of 0: the recipe is better)")
    figure.legend(loc="outside upper center", ncols=4)
    return {"tables": figure}


def _behind(rows: Sequence[Row], table: str, name: str) -> float:
    found = [row for row in rows if row["labels"]["table"] == table and name in row]
    return float(np.mean([row[name] - row[RECIPE] for row in found])) if found else float("nan")


TABLES = Experiment(
    about="exact test NLL (nats) of tables: the recipe, and other packages at equal seconds",
    legend="gmm: scikit-learn's mixture of Gaussians, its number by validation; maf, nsf: zuko's; "
    "lead: the recipe's over the best of them, row by row; ±: 95 %, over seeds, or test rows of "
    "one seed; ahead: which is, where that leaves out 0",
    uses=IMAGE_OPTIONS - {"source"} | {"sources"},
    cells=cells,
    columns=(
        Column(RECIPE, RECIPE, 2, interval=False),
        *(Column(name, name, 2, interval=False) for name in PEERS),
        Column("gaussian", "Gaussian", 2, interval=False),
        Column("lead", "lead", 2, error="lead_se"),
    ),
    rows=rows,
    figures=figures,
)
