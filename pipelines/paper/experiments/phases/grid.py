"""What is trained: a grid of nets, objectives and rates, and pairs that are compared at length.

The *map* crosses activation, start, preprocessing, learning rate and objective at D = 64, and,
with fewer starts and whitened data alone, at the D of larger images. The *pairs* are fewer and
longer: scores alone, and exact likelihood of the published net. A seed is a split of the data, an
order of their batches and noise of its own; starts are the same of all seeds. The larger images
have the first seed alone.
"""

from collections.abc import Iterator
from itertools import product

from pipelines.config import DataConfig, ObjectiveConfig
from pipelines.paper.config import PaperConfig, StackConfig
from pipelines.paper.experiments.cell import Cell
from pipelines.paper.experiments.settings import data

MAP, WIDE, PAIRS = "map", "wide", "pairs"
"""Parts of the experiment."""

SIGMA = 0.3
"""The noise of the pairs."""

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


STEPS = {
    "smoke": {MAP: 30, WIDE: 30, PAIRS: 30},
    "cpu": {MAP: 600, WIDE: 300, PAIRS: 1_500},
    "full": {MAP: 6_000, WIDE: 2_500, PAIRS: 20_000},
}
"""Of a training, by scale and part."""

SEEDS = {"smoke": 2, "cpu": 5, "full": 10}
"""Seeds, by scale, if none are asked for."""

DIGITS = DataConfig(source="digits")


def cells(config: PaperConfig, seed: int) -> Iterator[Cell]:
    """Yields the map, with the first seed a part of it on larger images, and the pairs."""
    plain = {"preprocessings": ("whitened", "plain"), "starts": STARTS, "rates": RATES}
    wide = {"starts": WIDE_STARTS, "rates": WIDE_RATES, "threads": config.threads}
    pairs = {"starts": (PLAIN,), "rates": PAIR_RATES}
    images = data(config, "mnist")
    ways = [
        *((MAP, DIGITS, *way, plain) for way in product(ACTIVATIONS, SCORES)),
        *((WIDE, images, *way, wide) for way in product(ACTIVATIONS, SCORES)),
        (PAIRS, DIGITS, "published", LIKELIHOOD, pairs | {"starts": (PUBLISHED, PLAIN)}),
        *((PAIRS, DIGITS, activation, DENOISING, pairs) for activation in ALONE),
    ]
    for part, source, activation, objective, options in ways:
        if part == WIDE and seed != config.seed:
            continue
        steps = STEPS[config.scale][part]
        stack = StackConfig(
            part=part, activation=activation, objective=objective, seed=seed, steps=steps,
            looks=_looks(steps, 10 if part == PAIRS else 4), **options,
        )  # fmt: skip
        labels = {"part": part, "f": activation, "objective": stack.trained_by}
        yield Cell(labels, stack, seed, source.changed(seed=seed))


def _looks(steps: int, parts: int) -> tuple[int, ...]:
    """Returns the steps of the rule, and those that end equal parts of a training."""
    equal = (round(steps * part / parts) for part in range(parts + 1))
    return tuple(sorted({*(step for step in STEPS_OF_THE_RULE if step <= steps), *equal}))
