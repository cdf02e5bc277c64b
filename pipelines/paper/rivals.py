"""The default recipe beside its rivals at equal seconds: the experiment ``tables``.

Each seed splits the rows of a table anew. Beside the recipe stand densities of other packages,
*peers*.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from pipelines.config import DensityConfig, PreprocessFit
from pipelines.config.recipes import for_source
from pipelines.config.source import overlap
from pipelines.paper import cell
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig

SECONDS, LENGTH = 30.0, 40_000  # Seconds of a training at scale ``cpu``; steps at ``full``

PEERS = ("gmm", "maf", "nsf")  # Densities of other packages
REFINED = "refined"  # By ebflow.fit and ebflow.refine


def peers(
    config: PaperConfig,
    labels: Mapping[str, str],
    flow: DensityConfig,
    seconds: float,
    names: Sequence[str] = PEERS,
) -> Iterator[Cell]:
    """Yields the cells of peers, which have the data and seconds of a flow.

    Their preprocessing dequantizes as the flow's does, so that all are densities of the same rows.
    """
    changes = {"normalize": "standardize", "shrinkage": 0.0, "tails": False}
    preprocess = PreprocessFit(
        seed=flow.seed, options=flow.preprocess.changed(**changes), threads=config.threads
    )
    for name in names:
        fitted = cell.rival(config, flow.seed, name, cpu=seconds, full=LENGTH)
        named = {key: value or name for key, value in labels.items()}
        yield Cell(named, fitted, flow.seed, flow.data, preprocess, stage="peer")


RECIPE = "recipe"


def _of_tables(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per table and density."""
    limits = {"cpu": SECONDS, "full": LENGTH}
    for name, source in cell.tables(config).items():
        own = for_source(cell.data(config, source))[0]
        recipe = partial(own.changed, rival=None)  # which would double the seconds
        flow = cell.base(config, seed, source, recipe=recipe, **limits)
        flow = flow.changed(data={"seed": seed})
        yield Cell.of_flow({"table": name, "density": RECIPE}, flow)
        labels, names = {"table": name, "density": ""}, (*PEERS, REFINED)
        yield from peers(config, labels, flow, SECONDS, names)


def _leads(finished: Sequence[Finished]) -> list[Row]:
    """Returns one row per table and seed: the NLL of every density, and the recipe's lead.

    The refined flow's gain is over the recipe. The lead is over the peer of the seed with the
    least test NLL, test row by test row. Seeds whose recipe diverged are dropped.
    """
    cells: dict[tuple[str, int], dict[str, Finished]] = {}
    for one in finished:
        table, density = one.cell.labels.values()
        cells.setdefault((table, one.cell.seed), {})[density] = one
    return [_table_row(table, found) for (table, _), found in cells.items() if RECIPE in found]


def _table_row(table: str, densities: Mapping[str, Finished]) -> Row:
    recipe = densities[RECIPE]
    nlls = {name: one.row["test/nll"] for name, one in densities.items()}
    best = min(densities.keys() & {*PEERS}, key=nlls.get, default=None)
    refined = densities.get(REFINED)
    return {
        **recipe.row,
        **(refined.gain(recipe, "refined_gain") if refined else {}),
        **recipe.gain(densities.get(best), "lead"),
        **nlls,
        "labels": {"table": table},
        "overlap": overlap(recipe.cell.data),
    }


TABLES = Experiment(
    about="exact test NLL (nats) of tables: the recipe, and other packages at equal seconds",
    legend="gmm: scikit-learn's mixture of Gaussians, its number by validation; maf, nsf: zuko's; "
    "lead: the recipe's over the best peer of the seed, row by row; refined: the gain of "
    "ebflow.fit and ebflow.refine over the recipe; ±: 95 %, over seeds, each with a split of its "
    "own (as Nadeau and Bengio, 2003), or test rows of one seed",
    uses=cell.IMAGE_OPTIONS - {"source"} | {"sources"},
    data="rows of real numbers",
    cells=_of_tables,
    columns=(
        *(Column(name, name, 2, interval=False) for name in (RECIPE, *PEERS)),
        Column("lead", "lead", 2),
        Column("refined_gain", "refined", 2),
    ),
    rows=_leads,
)
