"""From the configuration of the study to its cells, those that take longest first."""

from collections.abc import Iterator
from itertools import product
from typing import Any

from ebflow.complexity.closed_forms import worst_eta
from pipelines.sample_complexity import config as configs
from pipelines.sample_complexity.config import CellConfig, ComplexityConfig

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

SEPARATIONS = (1.0, 2.5)
PAIR_SIZES = (64, 128, 256, 512, 1024, 2048)
PAIR_OBJECTIVES = ("ml", "ism", "dsm0.3", "dsm1")
"""Two Gaussians: a, m, and what is minimized."""

WEIGHT_MODES, WEIGHT_NOISE = (1.0, 2.0), 2.0
"""Estimates of a mode's weight: a, and the noise of denoising."""

DENOISED = 4
"""Denoising, which costs more, has one of so many estimates."""


def cells(config: ComplexityConfig) -> list[CellConfig]:
    """Returns all cells."""
    kinds = (_denoisers, _samplers, _networks, _pairs, _weights, _finite, _small)
    return [cell for kind in kinds for cell in kind(config)]


def _parts(count: int, size: int) -> list[dict[str, int]]:
    """Returns where each part of ``count`` training sets begins, and how many it has."""
    return [{"first": k, "count": min(size, count - k)} for k in range(0, count, size)]


def middle(config: ComplexityConfig, index: int = 1) -> float:
    """Returns the R/σ at which other things than R are varied."""
    radii = config.network_radii or config.grid.radii
    return radii[min(index, len(radii) - 1)]


def _common(config: ComplexityConfig) -> dict[str, Any]:
    """Returns what all networks on the line and across it have."""
    grid, learners = config.grid, config.learners
    return {
        "seed": config.seed, "epsilon": grid.epsilon, "deltas": grid.deltas,
        "ratio": middle(config), "size": 1,
        "width": learners.width, "depth": learners.depth, "batch": learners.batch,
    }  # fmt: skip


def _samplers(config: ComplexityConfig) -> Iterator[configs.SamplerCell]:
    learners = config.learners
    common = _common(config) | {
        "sizes": SAMPLER_SIZES, "width": 2 * learners.width, "lengths": learners.sampler_lengths,
        "samples": learners.samples, "levels": learners.levels,
    }  # fmt: skip
    for part in _parts(learners.sampler_seeds, SAMPLER_SEEDS):
        yield configs.SamplerCell(**common, **part)


def _denoisers(config: ComplexityConfig) -> Iterator[configs.DenoiserCell]:
    laws = config.laws
    common = {"seed": config.seed, "samples": laws.samples, "levels": laws.levels}
    residual = {
        "sizes": laws.sizes, "width": laws.width, "blocks": laws.blocks, "lengths": laws.lengths,
        "batch": laws.batch,
    }  # fmt: skip
    unet = {
        "net": "unet", "sizes": laws.unet_sizes, "width": laws.unet_channels,
        "lengths": (laws.unet_steps,), "batch": laws.unet_batch,
    }  # fmt: skip
    kinds = [(eta, residual, laws.seeds) for eta in laws.etas]
    kinds.append((min(laws.etas), unet, laws.unet_seeds))
    for law, (eta, net, seeds) in product(laws.names, kinds):
        for part in _parts(seeds, laws.cell_seeds):
            yield configs.DenoiserCell(**common, **net, **part, law=law, eta=eta)


def _networks(config: ComplexityConfig) -> Iterator[configs.NetworkCell]:
    """Gives networks of every R/σ and d; and of other widths, depths and less rare far modes."""
    grid, learners = config.grid, config.learners
    common = _common(config) | {"noise": "fresh", "steps": learners.steps}
    changes = [
        *({"ratio": ratio, "noise": noise}
          for ratio in config.network_radii[::-1] for noise in ("fresh", "once")),
        *({"ratio": middle(config, FURTHER), "size": d} for d in grid.dims if d > 1),
        *({"panel": "varied", "width": width} for width in grid.widths),
        *({"panel": "varied", "depth": d} for d in grid.depths if d != learners.depth),
        *({"panel": "varied", "rarity": rarity} for rarity in _rarities(config) if rarity != 1),
    ]  # fmt: skip
    for change, part in product(changes, _parts(grid.seeds, grid.cell_seeds)):
        yield configs.NetworkCell(**common | change, **part)


def _rarities(config: ComplexityConfig) -> list[float]:
    """Returns those of which a quantile at the last δ does not see the far mode."""
    grid = config.grid
    usual = worst_eta(middle(config), grid.epsilon)
    return [rarity for rarity in grid.rarities if rarity * usual < grid.deltas[-1]]


def _pairs(config: ComplexityConfig) -> Iterator[configs.PairCell]:
    learners = config.learners
    for a, objective in product(SEPARATIONS, PAIR_OBJECTIVES):
        yield configs.PairCell(
            seed=config.seed, count=learners.flow_seeds, a=a, objective=objective,
            sizes=(*PAIR_SIZES, None), steps=learners.flow_steps,
        )  # fmt: skip


def _weights(config: ComplexityConfig) -> Iterator[configs.WeightCell]:
    grid = config.grid
    fewer = max(2, grid.estimates // DENOISED)
    for a in WEIGHT_MODES:
        common = {"seed": config.seed, "a": a, "samples": grid.weights}
        yield configs.WeightCell(**common, estimator="dsm", sigma=WEIGHT_NOISE, count=fewer)
        for name in ("ism", "ml"):
            yield configs.WeightCell(**common, estimator=name, sigma=0.0, count=grid.estimates)


def _finite(config: ComplexityConfig) -> Iterator[configs.FiniteCell]:
    grid = config.grid
    common = {
        "seed": config.seed, "epsilon": grid.epsilon, "count": grid.trials, "size": 1,
        "deltas": grid.deltas,
    }  # fmt: skip
    changes = [
        *({"ratio": ratio} for ratio in grid.radii[::-1]),
        *({"ratio": middle(config), "size": d} for d in grid.dims if d > 1),
        {"ratio": grid.radii[-1], "eta": TRANSITION, "deltas": TRANSITION_DELTAS},
    ]
    for change in changes:
        yield configs.FiniteCell(**common | change)


def _small(config: ComplexityConfig) -> Iterator[CellConfig]:
    grid, common = config.grid, {"seed": config.seed, "epsilon": config.grid.epsilon}
    for hypotheses in grid.classes:
        yield configs.ClassCell(
            **common, count=grid.trials, ratio=middle(config), size=ACROSS, hypotheses=hypotheses,
            deltas=grid.deltas,
        )  # fmt: skip
    for ratio in config.network_radii:
        yield configs.TwoPointCell(**common, count=grid.pair_trials, ratio=ratio)
    for at in STEPS:
        yield configs.StepCell(seed=config.seed, epsilon=STEP_ERROR, count=grid.pair_trials, at=at)


NAMED = ("law", "net", "ratio", "size", "width", "depth", "rarity", "hypotheses", "eta",
        "at", "a", "noise", "panel", "objective", "estimator", "first")  # fmt: skip
"""What tells cells apart, besides their kind."""


def title(config: CellConfig) -> str:
    """Returns a cell's kind, what varies, and its first seed, as ``network, ratio 8, seed 6``."""
    kind = type(config).__name__.removesuffix("Cell").lower()
    found = {name: getattr(config, name, None) for name in NAMED}
    found["seed"] = found.pop("first")
    texts = (f"{name} {value if isinstance(value, str) else f'{value:g}'}"
             for name, value in found.items() if value is not None)  # fmt: skip
    return ", ".join([kind, *texts])
