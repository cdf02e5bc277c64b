"""From the configuration of the study to its cells, those that take longest first."""

from collections.abc import Iterator
from itertools import product

from pipelines.sample_complexity.config import (
    CellConfig,
    ClassCell,
    ComplexityConfig,
    DenoiserCell,
    FiniteCell,
    NetworkCell,
    PairCell,
    SamplerCell,
    StepCell,
    TwoPointCell,
    WeightCell,
)

TRANSITION = 0.01
"""The fixed η of the panel in which δ passes it."""

TRANSITION_DELTAS = (0.002, 0.005, 0.02, 0.05, 0.1)
"""The δ of that panel, below η and above."""

ACROSS = 32
"""Dimensions in which the shifts of large classes lie: enough for them to be far apart."""

FURTHER = 2
"""The R/σ by its place at which the dimension of networks is varied: the far mode decides there,
and not the bulk, of which networks learn more in more dimensions.
"""

STEPS = (1.5, 2.0, 2.5, 3.0)
"""Where the steps stand that an easy truth is taken for."""

STEP_ERROR = 1.0
"""Their error."""

SAMPLER_SIZES = (64, 256, 1024, 4096)
SAMPLER_SEEDS = 4
"""The m of networks for samplers, and the training sets of a cell of them."""

SEPARATIONS, WEIGHT = (1.0, 2.5), 0.3
PAIR_SIZES = (64, 128, 256, 512, 1024, 2048)
PAIR_OBJECTIVES = ("ml", "ism", "dsm0.3", "dsm1")
"""Two Gaussians: a, the weight of the first, m, and what is minimised."""

WEIGHT_MODES, WEIGHT_NOISE = (1.0, 2.0), 2.0
"""Estimates of a mode's weight: a, and the noise of denoising."""

DENOISED = 4
"""Denoising, which costs more, has one of so many estimates."""


def cells(config: ComplexityConfig) -> list[CellConfig]:
    """Returns all cells."""
    return [
        *_denoisers(config),
        *_samplers(config),
        *_networks(config),
        *_varied(config),
        *_pairs(config),
        *_weights(config),
        *_finite(config),
        *_small(config),
    ]


def _parts(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Gives where each part of ``count`` begins, and how many it has."""
    for first in range(0, count, size):
        yield first, min(size, count - first)


def middle(config: ComplexityConfig, index: int = 1) -> float:
    """Returns the R/σ at which other things than R are varied."""
    radii = config.network_radii or config.grid.radii
    return radii[min(index, len(radii) - 1)]


def _common(config: ComplexityConfig) -> dict:
    grid, learners = config.grid, config.learners
    return {
        "seed": config.seed, "epsilon": grid.epsilon, "deltas": grid.deltas,
        "depth": learners.depth, "batch": learners.batch,
    }  # fmt: skip


def _samplers(config: ComplexityConfig) -> Iterator[SamplerCell]:
    learners = config.learners
    for first, count in _parts(learners.sampler_seeds, SAMPLER_SEEDS):
        yield SamplerCell(
            **_common(config), ratio=middle(config), size=1, first=first, count=count,
            sizes=SAMPLER_SIZES, width=2 * learners.width, lengths=learners.sampler_lengths,
            samples=learners.samples, levels=learners.levels,
        )  # fmt: skip


def _denoisers(config: ComplexityConfig) -> Iterator[DenoiserCell]:
    laws = config.laws
    common = {
        "seed": config.seed, "distance": laws.distance, "delta": laws.delta,
        "samples": laws.samples, "levels": laws.levels,
    }  # fmt: skip
    residual = {
        "sizes": laws.sizes, "width": laws.width, "blocks": laws.blocks, "lengths": laws.lengths,
        "batch": laws.batch,
    }  # fmt: skip
    unet = {
        "net": "unet", "sizes": laws.unet_sizes, "width": laws.unet_channels,
        "lengths": (laws.unet_steps,), "batch": laws.unet_batch,
    }  # fmt: skip
    kinds = [
        *((eta, residual, laws.seeds) for eta in laws.etas),
        (min(laws.etas), unet, laws.unet_seeds),
    ]
    for law, (eta, net, seeds) in product(laws.names, kinds):
        for first, count in _parts(seeds, laws.cell_seeds):
            yield DenoiserCell(**common, **net, law=law, eta=eta, first=first, count=count)


def _networks(config: ComplexityConfig) -> Iterator[NetworkCell]:
    grid, learners = config.grid, config.learners
    common = _common(config) | {"width": learners.width, "steps": learners.steps}
    lines = [(r, 1, noise) for r in config.network_radii[::-1] for noise in ("fresh", "once")]
    across = [(middle(config, FURTHER), d, "fresh") for d in grid.dims if d > 1]
    for ratio, size, noise in [*lines, *across]:
        for first, count in _parts(grid.seeds, grid.cell_seeds):
            yield NetworkCell(
                **common, ratio=ratio, size=size, noise=noise, first=first, count=count,
            )  # fmt: skip


def _varied(config: ComplexityConfig) -> Iterator[NetworkCell]:
    """Gives networks of other widths and depths, and of far modes that are less rare."""
    grid, learners = config.grid, config.learners
    common = _common(config) | {
        "ratio": middle(config), "size": 1, "noise": "fresh", "steps": learners.steps,
        "width": learners.width, "panel": "varied",
    }  # fmt: skip
    changes = [
        *({"width": width} for width in grid.widths),
        *({"depth": depth} for depth in grid.depths if depth != learners.depth),
        *({"rarity": rarity} for rarity in grid.rarities if rarity != 1),
    ]
    for change in changes:
        for first, count in _parts(grid.seeds, grid.cell_seeds):
            yield NetworkCell(**common | change, first=first, count=count)


def _pairs(config: ComplexityConfig) -> Iterator[PairCell]:
    for a in SEPARATIONS:
        for objective in PAIR_OBJECTIVES:
            yield PairCell(
                seed=config.seed, count=config.learners.flow_seeds, a=a, w=WEIGHT,
                objective=objective, sizes=(*PAIR_SIZES, None), steps=config.learners.flow_steps,
            )  # fmt: skip


def _weights(config: ComplexityConfig) -> Iterator[WeightCell]:
    grid = config.grid
    fewer = max(2, grid.estimates // DENOISED)
    for a in WEIGHT_MODES:
        common = {"seed": config.seed, "a": a, "samples": grid.weights}
        yield WeightCell(**common, estimator="dsm", sigma=WEIGHT_NOISE, count=fewer)
        for name in ("ism", "ml"):
            yield WeightCell(**common, estimator=name, sigma=0.0, count=grid.estimates)


def _finite(config: ComplexityConfig) -> Iterator[FiniteCell]:
    grid = config.grid
    common = {"seed": config.seed, "epsilon": grid.epsilon, "count": grid.trials}
    for ratio in grid.radii[::-1]:
        yield FiniteCell(**common, ratio=ratio, size=1, deltas=grid.deltas)
    for size in (d for d in grid.dims if d > 1):
        yield FiniteCell(**common, ratio=middle(config), size=size, deltas=grid.deltas)
    yield FiniteCell(
        **common, ratio=grid.radii[-1], size=1, eta=TRANSITION, deltas=TRANSITION_DELTAS
    )


def _small(config: ComplexityConfig) -> Iterator[CellConfig]:
    grid, common = config.grid, {"seed": config.seed, "epsilon": config.grid.epsilon}
    for hypotheses in grid.classes:
        yield ClassCell(
            **common, count=grid.trials, ratio=middle(config), size=ACROSS, hypotheses=hypotheses,
            deltas=grid.deltas,
        )  # fmt: skip
    for ratio in config.network_radii:
        yield TwoPointCell(**common, count=grid.pair_trials, ratio=ratio)
    for at in STEPS:
        yield StepCell(seed=config.seed, epsilon=STEP_ERROR, count=grid.pair_trials, at=at)


NAMED = ("law", "net", "ratio", "size", "width", "depth", "rarity", "hypotheses", "eta",
        "at", "a", "w", "noise", "panel", "objective", "estimator")  # fmt: skip
"""What tells cells apart, besides their kind and seeds."""


def title(config: CellConfig) -> str:
    """Returns a cell's kind, what varies, and its first seed, as ``network, ratio 8, seed 6``."""
    kind = type(config).__name__.removesuffix("Cell").lower()
    found = {name: getattr(config, name, None) for name in (*NAMED, "first")}
    named = {"first": "seed"}
    parts = [f"{named.get(name, name)} {_value(value)}" for name, value in found.items()
            if value is not None]  # fmt: skip
    return ", ".join([kind, *parts])


def _value(value: float | str | bool) -> str:
    return str(value) if isinstance(value, str | bool) else f"{value:g}"
