"""The recipe beside densities of other packages, table by table, at equal seconds.

Each seed splits the rows anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ebflow.errors import BadInput
from pipelines.config.recipes import RECIPES
from pipelines.config.source import overlap
from pipelines.paper import cell
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig
from pipelines.paper.rivals import PEERS, peer

SECONDS = 30.0
LENGTH = 40_000
RECIPE = "recipe"


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per table and density."""
    for source, name in zip(config.sources, _names(config.sources), strict=True):
        flow = cell.base(config, seed, source, cpu=SECONDS, full=LENGTH, recipe=RECIPES["tabular"])
        flow = flow.changed(data={"seed": seed})
        yield Cell.of_flow({"table": name, "density": RECIPE}, flow)
        for other in PEERS:
            yield peer(config, {"table": name, "density": other}, other, flow, SECONDS)


def _names(sources: Sequence[str]) -> list[str]:
    """Returns the names of the tables; raises BadInput if there is none, or two are equal."""
    names = [Path(source).stem for source in sources]
    if not names or len({*names}) < len(names):
        found = " ".join(names) or "none"
        expected = "one or more .parquet files of tables, with different names"
        raise BadInput(option="--sources", found=found, expected=expected)
    return names


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns one row per table and seed: the NLL of every density, and the recipe's lead.

    The lead is over the peer of the seed with the least test NLL, test row by test row. Seeds
    whose recipe diverged are left out.
    """
    cells: dict[tuple[str, int], dict[str, Finished]] = {}
    for one in finished:
        table, density = one.cell.labels.values()
        cells.setdefault((table, one.cell.seed), {})[density] = one
    return [_row(table, found) for (table, _), found in cells.items() if RECIPE in found]


def _row(table: str, densities: Mapping[str, Finished]) -> Row:
    recipe = densities[RECIPE]
    nlls = {name: one.row["test/nll"] for name, one in densities.items()}
    best = min(densities.keys() - {RECIPE}, key=nlls.get, default=None)
    return {
        **recipe.row,
        **recipe.gain(densities.get(best), "lead"),
        **nlls,
        "labels": {"table": table},
        "gaussian": recipe.row["baseline/gaussian_nll"],
        "overlap": overlap(recipe.cell.data),
    }


TABLES = Experiment(
    about="exact test NLL (nats) of tables: the recipe, and other packages at equal seconds",
    legend="gmm: scikit-learn's mixture of Gaussians, its number by validation; maf, nsf: zuko's; "
    "lead: the recipe's over the best peer of the seed, row by row; ±: 95 %, over seeds, each "
    "with a split of its own (as Nadeau and Bengio, 2003), or test rows of one seed",
    uses=cell.IMAGE_OPTIONS - {"source"} | {"sources"},
    data="rows of real numbers",
    cells=cells,
    columns=(
        *(Column(name, name, 2, interval=False) for name in (RECIPE, *PEERS)),
        Column("gaussian", "Gaussian", 2, interval=False),
        Column("lead", "lead", 2),
    ),
    rows=rows,
)
