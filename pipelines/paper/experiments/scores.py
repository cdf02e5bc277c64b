"""Score matching with learned activations, beside the anchor and alone, at equal seconds.

*Alone* no determinant, inverse or factorisation is computed at any step: what is trained is the
unnormalised density, and the normaliser is that of the trained matrices. It needs a start whose
activations have no mean to undo; learned ones start as the identity.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pipelines.config import AnchorConfig, DensityConfig, ObjectiveConfig
from pipelines.config.recipes import mnist9k, mnist9k_dense
from pipelines.paper.config import PaperConfig
from pipelines.paper.experiments.cell import STEPS, Cell, Column, Experiment, Folders, Row
from pipelines.paper.experiments.gains import measured, with_gains
from pipelines.paper.experiments.settings import EVERY, IMAGE_OPTIONS, bounds, data

SECONDS = 100.0
LENGTH = 40_000
ANCHORED, ALONE = 0.1, 0.3
"""Noise of denoising score matching beside the anchor, and alone."""

ALONE_START = {"lr": 1e-3, "lr_width": 784, "warmup": 0.05}
"""Scores alone do not stand the rates of the likelihood: a large step may lose mass, which a
falling rate does not always bring back. Nets of fewer elements stand larger steps (experiment
``phases``): the rate is that of MNIST, and falls with the root of D."""

RECIPES = {"dense": mnist9k_dense, "conv": mnist9k}
SHORT = {"spline": "spline", "smooth_leaky_relu": "leaky"}


class Way(NamedTuple):
    """An objective, and what is known of log Z while it trains.

    Attributes:
        objective: The objective.
        normaliser: ``lazy`` (the anchor, or the lazy likelihood's own), ``exact``, or ``none``.
        activation: The net's.
    """

    objective: str
    normaliser: str
    activation: str = "spline"


BOTH = (
    Way("lazy_ml", "lazy"),
    Way("dsm", "lazy"),
    Way("ssm_vr", "lazy"),
    Way("dsm", "none"),
    Way("ssm_vr", "none"),
)
WAYS = {"dense": (*BOTH, Way("ml", "exact", "smooth_leaky_relu")), "conv": BOTH}

REFERENCE = ("spline", "lazy_ml", "lazy")


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields one cell a net and way."""
    for net, ways in WAYS.items():
        for way in ways:
            labels = {"net": net, "f": SHORT[way.activation], "objective": way.objective}
            labels["log Z"] = way.normaliser
            yield Cell.of_flow(labels, _flow(config, seed, net, way))


def _flow(config: PaperConfig, seed: int, net: str, way: Way) -> DensityConfig:
    base = RECIPES[net]()
    alone = way.normaliser == "none"
    limits = {**bounds(config, cpu=SECONDS, full=LENGTH), "threads": config.threads}
    start = ALONE_START if alone else {}
    beside = {"sigma": ALONE} if alone else {"sigma": ANCHORED, "every": EVERY}
    return base.changed(
        seed=seed,
        data=data(config, "mnist"),
        model={"activation": way.activation, "hidden": None},
        objective=ObjectiveConfig.of(way.objective, **beside),
        anchor=AnchorConfig(weight=0.0) if alone else base.anchor,
        train={**limits, **start},
    )


def rows(cells: Sequence[Cell], folders: Sequence[Folders]) -> list[Row]:
    """Returns one row a cell, with its gain over ``lazy_ml`` of the same net, row by row."""
    found = [row for _, row in measured(cells, folders)]
    return with_gains(found, lambda labels: tuple(labels.values())[1:] == REFERENCE, "net")


SCORES = Experiment(
    about="score matching with learned activations for equal seconds: exact test NLL (nats)",
    legend="f: the activation, leaky is the published one; log Z lazy: an anchor beside the "
    f"scores, matched in one of {EVERY} steps, or the lazy likelihood itself; none: neither "
    "determinant nor inverse at any step; gain over lazy_ml of the same net, row by row; ±: 95 %, "
    "over seeds, or test rows of one seed",
    source="mnist",
    uses=IMAGE_OPTIONS,
    cells=cells,
    columns=(
        STEPS,
        Column("test/nll", "NLL", 1, "nll", error="test/nll_se"),
        Column("gain", "gain", 2, error="gain_se"),
    ),
    rows=rows,
)
