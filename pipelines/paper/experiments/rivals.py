"""Ways to train the likelihood of linear layers, all for the same seconds on the same machine.

Every method trains the same network, with and without whitening, at the same learning rates. The
table has the rate with the best mean validation NLL over seeds. For every method the NLL is the
exact one of the map from data to latent.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from pipelines.config import (
    AnchorConfig,
    DensityConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
)
from pipelines.config.recipes import for_source
from pipelines.paper.config import PEERS, PaperConfig
from pipelines.paper.experiments import equal_time
from pipelines.paper.experiments.cell import (
    EVERY,
    IMAGE_OPTIONS,
    Cell,
    Column,
    Experiment,
    Finished,
    Row,
    base,
)
from pipelines.training.architectures import load
from pipelines.training.learned_inverses import inverse_error

SECONDS = 10.0
LENGTH = 40_000
RATES = (5e-4, 1.5e-3, 5e-3)
SMOKE_RATE = RATES[1]

DENSE = ModelConfig(depth=2, activation="spline")
INVERSES = DENSE.changed(linear="learned_inverse")
METHODS: dict[str, tuple[str, ModelConfig]] = {
    "ml": ("ml", DENSE),
    "relative": ("relative_ml", DENSE),
    "lazy_ml": ("lazy_ml", DENSE),
    "lu": ("ml", DENSE.changed(linear="lu")),
    "selfnorm": ("self_normalizing", INVERSES),
    "freeform": ("free_form", INVERSES),
    "dsm": ("dsm", DENSE),
    "ssm_vr": ("ssm_vr", DENSE),
}
"""Objective and network of the methods that train a flow."""

PREPROCESSINGS = {
    "white": PreprocessConfig(normalize="whiten", shrinkage=equal_time.SHRINKAGE),
    "plain": PreprocessConfig(normalize="standardize"),
}

SOURCE = "digits"


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell per method, preprocessing and rate, and one per peer."""
    names = dict.fromkeys(("ml", *config.methods))
    smoke = config.scale == "smoke"
    rates = (SMOKE_RATE,) if smoke else RATES
    preprocessings = ("white",) if smoke else PREPROCESSINGS
    flows = [name for name in names if name in METHODS]
    for name, preprocessing, rate in product(flows, preprocessings, rates):
        labels = {"method": name, "data": preprocessing, "lr": f"{rate:g}"}
        yield Cell.of_flow(labels, _flow(config, seed, name, preprocessing, rate))
    for name in [name for name in names if name in PEERS]:
        preprocessing = "white" if name in equal_time.WHITENED else "plain"
        labels = {"method": name, "data": preprocessing, "lr": ""}
        flow = _flow(config, seed, "ml", "plain", SMOKE_RATE)
        yield equal_time.peer(config, labels, name, flow, SECONDS)


def _flow(
    config: PaperConfig, seed: int, name: str, preprocessing: str, rate: float
) -> DensityConfig:
    objective, model = METHODS[name]
    flow = base(
        config, seed, SOURCE, cpu=SECONDS, full=LENGTH, recipe=DensityConfig,
        batch_size=100, lr=rate, validate_every=100,
    )  # fmt: skip
    grids = for_source(flow.data)[0].preprocess.grids
    return flow.changed(
        preprocess=PREPROCESSINGS[preprocessing].changed(grids=grids),
        model=model,
        objective=ObjectiveConfig.of(objective, sigma=0.1, every=EVERY),
        anchor=AnchorConfig(tolerance=0.2),
    )


def rows(finished: Sequence[Finished]) -> list[Row]:
    """Returns one row per method, preprocessing and seed, at the rate that is best by validation.

    A rate counts only if no seed of it diverged. The gain is over ``ml`` on whitened data.
    """
    ways: dict[tuple[str, str], dict[str, list[Finished]]] = {}
    for one in equal_time.suitable(finished):
        method, preprocessing, rate = one.cell.labels.values()
        ways.setdefault((method, preprocessing), {}).setdefault(rate, []).append(one)
    seeds = len({one.cell.seed for one in finished})
    best: list[Finished] = []
    for rates in ways.values():
        complete = [trainings for trainings in rates.values() if len(trainings) == seeds]
        best += min(complete, key=_validation_nll, default=[])
    gains = equal_time.with_gains(best, {"method": "ml", "data": "white"})
    return [_shown(one, row) for one, row in zip(best, gains, strict=True)]


def _validation_nll(trainings: Sequence[Finished]) -> float:
    return float(np.mean([one.row["best/val_nll"] for one in trainings]))


def _shown(one: Finished, row: Row) -> Row:
    """Returns a row with its step time and the error of its inverse.

    The mixture that a training has beside it is left out, because it has rows of its own.
    """
    shown = {name: value for name, value in row.items() if name != "baseline/mixture_nll"}
    method = one.cell.labels["method"]
    step = 1e3 * row["time/train_s"] / max(row["train/steps"], 1)
    shown["time/step_ms"] = None if method in ("gmm", "kde") else step
    if method in METHODS:
        error = inverse_error(load(one.folders[0] / "checkpoint"))
        shown["inverse/percent"] = None if error is None else 100 * error
    return shown


RIVALS = Experiment(
    about="linear layers trained by likelihood for equal seconds: exact test NLL (nats)",
    legend="white: whitened, plain: standardized data; lr: of the same rates the best by "
    "validation; R: error of learned inverses, ‖RW − I‖ / √D; gain over ml on white data, row by "
    "row; ±: 95 %, over seeds, or test rows of one seed; maf, nsf, gmm, kde: other packages' "
    "densities, without those that are not for so many rows or columns",
    source=SOURCE,
    uses=IMAGE_OPTIONS | {"methods"},
    cells=cells,
    columns=(
        Column("time/train_s", "s", 0, interval=False),
        Column("time/step_ms", "ms", 1, interval=False),
        Column("inverse/percent", "R (%)", 1, interval=False),
        Column("test/nll", "NLL", 2, "baseline/{}_nll", error="test/nll_se"),
        Column("gain", "gain", 2, error="gain_se"),
    ),
    rows=rows,
    figures=lambda rows, finished: {
        "rivals": equal_time.curves(rows, lambda method, data, lr: (f"{data} data", method))
    },
)
