"""What is trained: a grid of nets, objectives and rates, and pairs that are compared at length.

The *map* crosses activation, start, preprocessing, learning rate and objective at D = 64, and a
part of it at the D of larger images. The *pairs* are fewer and longer: scores alone, and exact
likelihood of the published net. A seed is a split of the data, an order of their batches and noise
of its own; starts are the same of all seeds. The larger images have the first seed alone.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from pipelines.config import DataConfig, ObjectiveConfig
from pipelines.paper.config import PaperConfig, StackConfig
from pipelines.paper.experiments.cell import Cell
from pipelines.paper.experiments.settings import data

MAP, WIDE, PAIRS = "map", "wide", "pairs"
"""Parts of the experiment."""

SIGMA = 0.3
"""The noise of the pairs, and of the wide part."""

STEPS_OF_THE_RULE = (0, 25)
"""When what a rule may see is measured."""

SIGNS, BIASES, RATES = (1, -1), (0.0, 1.0), (1e-3, 4e-3)
STARTS = tuple(product(SIGNS, BIASES))
PUBLISHED, PLAIN = (-1, 1.0), (1, 0.0)
"""The published start, and the identity."""

WIDE_STARTS, WIDE_RATES = (PLAIN, PUBLISHED), (5e-4, 2e-3)
PAIR_RATES = (5e-3, 1e-2, 2e-2, 4e-2)
"""Of which the best by validation counts."""

SCORES = (
    *(ObjectiveConfig(name="dsm", sigma=sigma) for sigma in (0.1, SIGMA, 1.0)),
    ObjectiveConfig(name="ssm"),
    ObjectiveConfig(name="ssm_vr"),
)
DENOISING, LIKELIHOOD = SCORES[1], ObjectiveConfig(name="ml")
ACTIVATIONS = ("published", "centred", "learned")
ALONE = ("centred", "learned")
"""Activations with which scores alone are compared with likelihood."""


class Size(NamedTuple):
    """How much of it there is at a scale: steps of a training, and seeds."""

    map: int
    wide: int
    pairs: int
    seeds: int


SIZES = {
    "smoke": Size(30, 30, 30, 2),
    "cpu": Size(600, 300, 1_500, 5),
    "full": Size(6_000, 2_500, 20_000, 10),
}


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields the map, with the first seed a part of it on larger images, and the pairs."""
    size = SIZES[config.scale]
    common = {"preprocessings": ("whitened", "plain"), "starts": STARTS, "rates": RATES}
    for activation, objective in product(ACTIVATIONS, SCORES):
        yield _cell(DIGITS, MAP, activation, objective, seed, size.map, **common)
    if seed == config.seed:
        yield from _wide(config, seed, size.wide)
    exact = ("published", LIKELIHOOD, (PUBLISHED, PLAIN))
    alone = [(activation, DENOISING, (PLAIN,)) for activation in ALONE]
    for activation, objective, starts in (exact, *alone):
        yield _cell(
            DIGITS, PAIRS, activation, objective, seed, size.pairs,
            starts=starts, rates=PAIR_RATES, looks=10,
        )  # fmt: skip


def _wide(config: PaperConfig, seed: int, steps: int) -> Iterator[Cell]:
    images = data(config, "mnist")
    common = {"starts": WIDE_STARTS, "rates": WIDE_RATES, "threads": config.threads}
    objectives = (DENOISING, ObjectiveConfig(name="ssm_vr"))
    for activation, objective in product(ACTIVATIONS, objectives):
        yield _cell(images, WIDE, activation, objective, seed, steps, **common)


DIGITS = DataConfig(source="digits")


def _cell(
    data: DataConfig, part: str, activation: str, objective: ObjectiveConfig, seed: int,
    steps: int, *, looks: int = 4, **options: object,
) -> Cell:  # fmt: skip
    """Returns nets that are measured at the steps of the rule and at equal parts of training."""
    parts = (round(steps * k / looks) for k in range(looks + 1))
    at = tuple(sorted({*(step for step in STEPS_OF_THE_RULE if step <= steps), *parts}))
    stack = StackConfig(
        part=part, activation=activation, objective=objective, seed=seed, steps=steps, looks=at,
        **options,
    )  # fmt: skip
    labels = {"part": part, "f": activation, "objective": stack.trained_by}
    return Cell(labels, stack, seed, data.changed(seed=seed))
