"""Ways to train the likelihood of linear layers, all for the same seconds on the same machine.

Every method trains the same net, with and without whitening, at the same learning rates, of which
the best by the mean validation NLL over seeds is told. Whatever is trained, the NLL is exact, of
the map from data to latent.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import numpy as np
from matplotlib.figure import Figure

from ebflow.anchor import inverse_error
from ebflow.checkpoint import load
from pipelines.config import (
    AnchorConfig,
    DensityConfig,
    ModelConfig,
    ObjectiveConfig,
    PreprocessConfig,
    TrainConfig,
)
from pipelines.config.recipes import for_source
from pipelines.paper.config import PEERS, PaperConfig
from pipelines.paper.experiments.cell import Cell, Column, Experiment, Folders, Row, first_seed
from pipelines.paper.experiments.curves import Points, curve, drawn
from pipelines.paper.experiments.gains import Measured, measured, with_gains
from pipelines.paper.experiments.peers import SHRINKAGE, WHITENED, peer
from pipelines.paper.experiments.settings import EVERY, IMAGE_OPTIONS, bounds, data

SECONDS = 10.0
LENGTH = 40_000
RATES = (5e-4, 1.5e-3, 5e-3)
SMOKE_RATE = RATES[1]
SIGMA = 0.1
"""Noise of denoising score matching, beside the anchor."""

DENSE = ModelConfig(depth=2, activation="spline")
INVERSES = DENSE.changed(linear="learned_inverse")
CIRCULAR = ModelConfig(architecture="convolutional", padding="circular", activation="spline")

METHODS: dict[str, tuple[str, ModelConfig]] = {
    "ml": ("ml", DENSE),
    "relative": ("relative_ml", DENSE),
    "lazy_ml": ("lazy_ml", DENSE),
    "lu": ("ml", DENSE.changed(linear="lu")),
    "selfnorm": ("self_normalizing", INVERSES),
    "freeform": ("free_form", INVERSES),
    "dsm": ("dsm", DENSE),
    "ssm_vr": ("ssm_vr", DENSE),
    "circular": ("ml", CIRCULAR),
}
"""Objective and net of the methods that train a flow."""

PREPROCESSINGS = {
    "white": PreprocessConfig(normalise="whiten", shrinkage=SHRINKAGE),
    "plain": PreprocessConfig(normalise="standardise"),
}
"""Preprocessing: whitened, or every element standardised alone."""

SOURCE = "digits"

REFERENCE = ("ml", "white")


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell a method, preprocessing and rate, and one a peer."""
    names = dict.fromkeys(("ml", *config.methods))
    smoke = config.scale == "smoke"
    rates = (SMOKE_RATE,) if smoke else RATES
    preprocessings = ("white",) if smoke else PREPROCESSINGS
    flows = [name for name in names if name in METHODS]
    for name, preprocessing, rate in product(flows, preprocessings, rates):
        labels = {"method": name, "data": preprocessing, "lr": f"{rate:g}"}
        yield Cell.of_flow(labels, _flow(config, seed, name, preprocessing, rate))
    for name in [name for name in names if name in PEERS]:
        labels = {"method": name, "data": "white" if name in WHITENED else "plain", "lr": ""}
        flow = _flow(config, seed, "ml", "plain", SMOKE_RATE)
        yield peer(config, labels, name, flow, SECONDS)


def _flow(
    config: PaperConfig, seed: int, name: str, preprocessing: str, rate: float
) -> DensityConfig:
    objective, model = METHODS[name]
    source = data(config, SOURCE)
    grids = for_source(source)[0].preprocess.grids
    train = TrainConfig(batch_size=100, lr=rate, validate_every=100, threads=config.threads)
    return DensityConfig(
        seed=seed,
        data=source,
        preprocess=PREPROCESSINGS[preprocessing].changed(grids=grids),
        model=model,
        objective=ObjectiveConfig.of(objective, sigma=SIGMA, every=EVERY),
        anchor=AnchorConfig(tolerance=0.2),
        train=train.changed(**bounds(config, cpu=SECONDS, full=LENGTH)),
    )


def rows(cells: Sequence[Cell], folders: Sequence[Folders]) -> list[Row]:
    """Returns one row a method, preprocessing and seed, at the rate that is best by validation.

    A rate counts only if no seed of it diverged. The gain is over ``ml`` behind the whitening,
    test row by test row.
    """
    found: dict[tuple[str, str], dict[str, list[Measured]]] = {}
    for folder, row in measured(cells, folders):
        method, preprocessing, rate = row["labels"].values()
        rates = found.setdefault((method, preprocessing), {})
        rates.setdefault(rate, []).append((folder, row))
    seeds = len({cell.seed for cell in cells})
    chosen = (_best(rates.values(), seeds) for rates in found.values())
    shown = [_shown(*one) for best in chosen for one in best]
    return with_gains(shown, lambda labels: (labels["method"], labels["data"]) == REFERENCE)


def _best(rates: Iterable[Sequence[Measured]], seeds: int) -> Sequence[Measured]:
    """Returns what was measured at the best rate, of those that have all seeds."""

    def nll(found: Sequence[Measured]) -> float:
        return float(np.mean([row["best/val_nll"] for _, row in found]))

    return min((found for found in rates if len(found) == seeds), key=nll, default=())


def _shown(folders: Folders, row: Row) -> Row:
    """Returns a row with its step time, curve and inverse's error.

    And without the mixture beside it, which has rows of its own.
    """
    shown = {name: value for name, value in row.items() if name != "baseline/mixture_nll"}
    shown |= {"curve": curve(folders[0]), "time/step_ms": _step_time(row)}
    if len(folders) > 1:
        error = inverse_error(load(folders[0] / "checkpoint"))
        shown["inverse/percent"] = None if error is None else 100 * error
    return shown


def _step_time(row: Row) -> float | None:
    """Returns milliseconds a step of what is trained by steps."""
    stepless = row["labels"]["method"] in ("gmm", "kde")
    return None if stepless else 1e3 * row["time/train_s"] / max(row["train/steps"], 1)


def figures(rows: Sequence[Row], folders: Sequence[Folders]) -> dict[str, Figure]:
    """Returns the first seed's best validation NLL against training seconds, by preprocessing."""
    panels: dict[str, dict[str, Points]] = {f"{name} data": {} for name in PREPROCESSINGS}
    for (row,) in first_seed(rows):
        method, preprocessing, _ = row["labels"].values()
        panels[f"{preprocessing} data"][method] = row["curve"]
    return {"rivals": drawn(panels)}


RIVALS = Experiment(
    about="linear layers trained by likelihood for equal seconds: exact test NLL (nats)",
    legend="white: whitened, plain: standardised data; lr: of the same rates the best by "
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
        Column("test/nll", "NLL", 2, "nll", error="test/nll_se"),
        Column("gain", "gain", 2, error="gain_se"),
    ),
    rows=rows,
    figures=figures,
)
