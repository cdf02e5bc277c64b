"""Flows beside their rivals at equal seconds: the experiments ``rivals`` and ``tables``.

In ``rivals`` every method trains the same linear layers, with and without whitening, at the same
learning rate. The NLL is the exact one of the map from data to latent. In ``tables`` the default
recipe is trained on tables, whose rows each seed splits anew. Beside both stand densities of other
packages, *peers*.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from pipelines.config import (
    AnchorConfig,
    Dense,
    DensityConfig,
    Objective,
    PreprocessConfig,
    PreprocessFit,
)
from pipelines.config.recipes import RECIPES, for_source
from pipelines.config.source import overlap
from pipelines.paper import cell
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig

# Seconds of trainings of linear layers and on tables at scale ``cpu``; steps at ``full``.
SECONDS, TABLE_SECONDS, LENGTH = 10.0, 30.0, 40_000

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


# The best one of 5e-4, 1.5e-3 and 5e-3 by validation rows of two seeds, for every method that has
# an anchor or the exact likelihood.
RATE = 5e-3

DENSE = Dense(depth=2, activation="spline")
EXACT = ["ml", "white"]  # The method and data over which others gain

# Objectives of the methods that train a flow. *Alone*, no step computes a determinant, inverse or
# factorization: the unnormalized density is trained, and the normalizer is that of the trained
# matrices. That needs a start whose activations have no mean to undo; learned ones start as the
# identity.
METHODS = {
    "ml": "ml",
    "relative": "relative_ml",
    "lazy_ml": "lazy_ml",
    "dsm": "dsm",
    "ssm_vr": "ssm_vr",
    "dsm alone": "dsm",
    "ssm_vr alone": "ssm_vr",
}

SIGMA, ALONE_SIGMA = 0.1, 0.3  # Noise of denoising score matching beside the anchor, and alone

PREPROCESSINGS = {
    "white": PreprocessConfig(normalize="whiten", shrinkage=0.01),
    "plain": PreprocessConfig(normalize="standardize"),
}


def _of_layers(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per method and preprocessing, and one per peer."""
    preprocessings = ("white",) if config.scale == "smoke" else PREPROCESSINGS
    for name, preprocessing in product(METHODS, preprocessings):
        flow = _flow(config, seed, name, preprocessing)
        yield Cell.of_flow({"method": name, "data": preprocessing}, flow)
    flow = _flow(config, seed, "ml", "plain")
    yield from peers(config, {"method": "", "data": "plain"}, flow, SECONDS)


def _flow(config: PaperConfig, seed: int, name: str, preprocessing: str) -> DensityConfig:
    flow = cell.base(
        config, seed, "digits", cpu=SECONDS, full=LENGTH, recipe=DensityConfig,
        batch_size=100, lr=RATE, validate_every=100,
    )  # fmt: skip
    grids = for_source(flow.data)[0].preprocess.grids
    beside = {"sigma": SIGMA, "every": cell.EVERY}, AnchorConfig(tolerance=0.2)
    alone = {"sigma": ALONE_SIGMA}, AnchorConfig(weight=0.0)
    options, anchor = alone if name.endswith("alone") else beside
    return flow.changed(
        preprocess=PREPROCESSINGS[preprocessing].changed(grids=grids),
        model=DENSE,
        objective=Objective.of(METHODS[name], **options),
        anchor=anchor,
    )


def _gains(finished: Sequence[Finished]) -> list[Row]:
    """Returns one row per cell, with the gain over ``ml`` on whitened data of the seed."""
    exact = {one.cell.seed: one for one in finished if [*one.cell.labels.values()] == EXACT}
    return [one.row | one.gain(exact.get(one.cell.seed), "gain") for one in finished]


RIVALS = Experiment(
    about="linear layers trained by likelihood for equal seconds: exact test NLL (nats)",
    legend=f"white: whitened, plain: standardized data; learning rate {RATE:g}; "
    "alone: scores in every step, without an anchor; other scores: in one of "
    f"{cell.EVERY} steps beside it; gain over ml on white data, "
    "row by row; ±: 95 %, over seeds, or test rows of one seed; maf, nsf, gmm: other "
    "packages'",
    source="digits",
    cells=_of_layers,
    columns=(
        Column("time/train_s", "s", 0, interval=False),
        cell.STEPS,
        cell.GAUSSIAN,
        Column("test/nll", "NLL", 2),
        Column("gain", "gain", 2),
    ),
    rows=_gains,
)

RECIPE = "recipe"


def _of_tables(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per table and density."""
    limits = {"cpu": TABLE_SECONDS, "full": LENGTH}
    for name, source in cell.tables(config).items():
        flow = cell.base(config, seed, source, recipe=RECIPES["tabular"], **limits)
        flow = flow.changed(data={"seed": seed})
        yield Cell.of_flow({"table": name, "density": RECIPE}, flow)
        labels, names = {"table": name, "density": ""}, (*PEERS, REFINED)
        yield from peers(config, labels, flow, TABLE_SECONDS, names)


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
