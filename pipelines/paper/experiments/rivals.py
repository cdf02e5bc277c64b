"""Ways to train linear layers for equal seconds.

Every method trains the same layers, with and without whitening, at the same learning rate. The NLL
is the exact one of the map from data to latent. Beside them stand densities of other packages.
"""

from collections.abc import Iterator, Sequence
from itertools import product

from pipelines.config import AnchorConfig, Dense, DensityConfig, Objective, PreprocessConfig
from pipelines.config.objective import LearnedInverse
from pipelines.config.recipes import for_source
from pipelines.paper import cell
from pipelines.paper.cell import Cell, Column, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig
from pipelines.paper.rivals import LENGTH, peers

SECONDS = 10.0  # Seconds of a training at scale ``cpu``


# The best one of 5e-4, 1.5e-3 and 5e-3 by validation rows of two seeds, for every method that has
# an anchor or the exact likelihood.
RATE = 5e-3

DENSE = Dense(depth=2, activation="spline")
INVERSES = DENSE.changed(linear="learned_inverse")
EXACT = ["ml", "white"]  # The method and data over which others gain

# Objectives of the methods that train a flow. *Alone*, no step computes a determinant, inverse or
# factorization: the unnormalized density is trained, and the normalizer is that of the trained
# matrices. That needs a start whose activations have no mean to undo; learned ones start as the
# identity. The objectives with learned inverses of the layers are other people's: see
# ``ebflow.learned_inverse``.
METHODS = {
    "ml": "ml",
    "relative": "relative_ml",
    "lazy_ml": "lazy_ml",
    "selfnorm": "self_normalizing",
    "freeform": "free_form",
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


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
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
    objective = Objective.of(METHODS[name], **options)
    return flow.changed(
        preprocess=PREPROCESSINGS[preprocessing].changed(grids=grids),
        model=INVERSES if isinstance(objective, LearnedInverse) else DENSE,
        objective=objective,
        anchor=anchor,
    )


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns one row per cell, with the gain over ``ml`` on whitened data of the seed."""
    exact = {one.cell.seed: one for one in finished if [*one.cell.labels.values()] == EXACT}
    return [one.row | one.gain(exact.get(one.cell.seed), "gain") for one in finished]


RIVALS = Experiment(
    about="linear layers trained by likelihood for equal seconds: exact test NLL (nats)",
    legend=f"white: whitened, plain: standardized data; learning rate {RATE:g}; "
    "alone: scores in every step, without an anchor; other scores: in one of "
    f"{cell.EVERY} steps beside it; gain over ml on white data, "
    "row by row; selfnorm, freeform: learned inverses of the layers; ±: 95 %, over seeds, or test "
    "rows of one seed; maf, nsf, gmm: other packages'",
    source="digits",
    cells=cells,
    columns=(
        Column("time/train_s", "s", 0, interval=False),
        cell.STEPS,
        cell.GAUSSIAN,
        Column("test/nll", "NLL", 2),
        Column("gain", "gain", 2),
    ),
    rows=rows,
)
