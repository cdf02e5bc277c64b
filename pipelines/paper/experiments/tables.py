"""The recipe for tables beside other packages' densities, table by table, at equal seconds."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ebflow.errors import BadInput
from pipelines.config import DataConfig
from pipelines.config.recipes import tabular
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments.cell import Cell, Column, Experiment, Folders, Row
from pipelines.paper.experiments.peers import LOG_PROBS, gained, measured, peer, with_gain
from pipelines.paper.experiments.settings import bounds
from pipelines.reporting.style import panels

SECONDS = 30.0
STEPS = 40_000
RECIPE = "recipe"
PEERS = ("gmm", "maf", "nsf")
CLEAR = 2.0
"""Standard errors of a lead that is no chance."""


def cells(config: PaperConfig) -> list[Cell]:
    """Returns one cell a table, seed and density.

    Raises:
        BadInput: if there is no table, or two are called alike.
    """
    if not config.sources:
        raise BadInput("--sources: found none, expected .parquet files of tables")
    names = Counter(Path(source).stem for source in config.sources)
    twice = next((name for name, count in names.items() if count > 1), None)
    if twice is not None:
        raise BadInput(f"--sources: found two tables called {twice}, expected names of their own")
    return [
        cell
        for seed in config.trials
        for source in config.sources
        for cell in _cells(config, source, seed)
    ]


def _cells(config: PaperConfig, source: str, seed: int) -> Iterator[Cell]:
    data = DataConfig(
        source=source, validation=config.validation, test=config.test, rows=config.rows
    )
    limits = {**bounds(config, cpu=SECONDS, full=STEPS), "threads": config.threads}
    flow = tabular().changed(seed=seed, data=data, train=limits)
    name = Path(source).stem
    yield Cell.of_flow({"table": name, "density": RECIPE}, flow)
    for other in PEERS:
        labels = {"table": name, "density": other}
        yield peer(config, labels, other, flow, SECONDS)


def rows(cells: Sequence[Cell], folders: Sequence[Folders]) -> list[Row]:
    """Returns one row a table and seed: the NLL of every density, and the recipe's lead.

    That is over the best peer by the mean test NLL over seeds, test row by test row.
    """
    found: dict[str, dict[str, dict[int, Row]]] = {}
    for _, _, row in measured(cells, folders):
        table, density = row["labels"].values()
        found.setdefault(table, {}).setdefault(density, {})[row["seed"]] = row
    return [row for densities in found.values() for row in _rows(densities)]


def _rows(densities: Mapping[str, Mapping[int, Row]]) -> Iterator[Row]:
    """Yields the rows of a table, of the seeds that the recipe has."""
    if RECIPE not in densities:
        return
    means = {
        name: float(np.mean([row["test/nll"] for row in seeds.values()]))
        for name, seeds in densities.items()
    }
    rivals = [name for name in PEERS if name in means]
    best = min(rivals, key=means.__getitem__, default=None)
    verdict = _verdict(densities, best)
    for seed, row in densities[RECIPE].items():
        yield _row(row, verdict, best, {n: s[seed] for n, s in densities.items() if seed in s})


def _verdict(densities: Mapping[str, Mapping[int, Row]], best: str | None) -> str:
    """Returns which density is ahead, over all seeds; ``level`` if that may be chance."""
    if best is None:
        return ""
    ours, theirs = (
        np.mean([row[LOG_PROBS] for row in densities[name].values()], 0) for name in (RECIPE, best)
    )
    lead, error = gained(ours, theirs)
    if abs(lead) < CLEAR * error:
        return "level"
    return RECIPE if lead > 0 else best


def _row(row: Row, verdict: str, best: str | None, beside: Mapping[str, Row]) -> Row:
    shown = with_gain(row, beside.get(best), "lead")
    shown["labels"] = {"table": row["labels"]["table"], "ahead": verdict}
    for name, other in beside.items():
        shown |= {name: other["test/nll"], f"{name}/se": other["test/nll_se"],
                  f"{name}/seconds": other["time/train_s"]}  # fmt: skip
    return {**shown, "gaussian": row["baseline/gaussian_nll"], "best": best}


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
    "lead: the recipe's over the best of them, row by row; ahead: which is, by two standard "
    "errors; ±: 95 %, over seeds, or test rows of one seed",
    note="",
    source=None,
    uses=frozenset(
        ("sources", "seconds", "rows", "validation", "test", "seed", "seeds", "threads", "cluster")
    ),
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
