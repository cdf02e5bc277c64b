"""The cells of the study: each stage ``learn`` samples, fits and measures one of them."""

from collections.abc import Iterator
from itertools import product
from typing import Any, Literal

from ebflow.complexity.closed_forms import worst_eta
from pipelines.config.section import Section
from pipelines.sample_complexity.config import DELTAS, EPSILON, ComplexityConfig, Name

FURTHER = 2
"""Index of the R/σ at which the dimension of networks varies: there the far mode decides, not
the bulk, of which networks learn more in more dimensions.
"""

SAMPLER_SIZES = (64, 256, 1024, 4096)
SAMPLER_SEEDS = 4
"""The m of networks for all noise levels, and their training sets per cell."""


class Cell(Section):
    """Training sets ``first`` … ``first + count - 1`` of one setting."""

    seed: int
    first: int = 0
    count: int


class LearnerCell(Cell):
    """Networks trained on a distribution with a far mode."""

    ratio: float
    size: int = 1
    width: int
    depth: int
    batch: int


class NetworkCell(LearnerCell):
    """Networks for one noise level, with one noise vector per sample or fresh ones.

    ``rarity`` is the far mode's weight as a multiple of its usual one.
    """

    noise: Literal["once", "fresh"] = "fresh"
    panel: Literal["networks", "varied"] = "networks"
    rarity: float = 1.0
    steps: int


class SamplerCell(LearnerCell):
    """Networks for all noise levels, and samples by the reverse diffusion."""

    sizes: tuple[int, ...]
    lengths: tuple[int, ...]
    samples: int
    levels: int


class DenoiserCell(Cell):
    """Networks for all noise levels of a distribution fitted to images.

    ``eta`` is the weight of a mode that is added; 0: none.
    """

    distribution: Name
    eta: float
    sizes: tuple[int, ...]
    net: Literal["residual", "unet"] = "residual"
    width: int
    blocks: int = 1
    lengths: tuple[int, ...]
    batch: int
    samples: int
    levels: int


def cells(config: ComplexityConfig) -> list[Cell]:
    """Returns all cells, the slowest first."""
    kinds = (_denoisers, _samplers, _networks)
    return [cell for kind in kinds for cell in kind(config)]


def middle(config: ComplexityConfig, index: int = 1) -> float:
    """Returns the R/σ at which other quantities vary."""
    radii = config.grid.radii
    return radii[min(index, len(radii) - 1)]


def _parts(count: int, size: int) -> list[dict[str, int]]:
    """Returns the first training set and the number of sets of each cell."""
    return [{"first": k, "count": min(size, count - k)} for k in range(0, count, size)]


def _denoisers(config: ComplexityConfig) -> Iterator[DenoiserCell]:
    options = config.distributions
    residual = {
        "sizes": options.sizes, "width": options.width, "blocks": options.blocks,
        "lengths": options.lengths, "batch": options.batch,
    }  # fmt: skip
    unet = {
        "net": "unet", "sizes": options.unet_sizes, "width": options.unet_channels,
        "lengths": (options.unet_steps,), "batch": options.unet_batch,
    }  # fmt: skip
    kinds = [(eta, residual, options.seeds) for eta in (0.0, *options.etas)]
    kinds.append((0.0, unet, options.unet_seeds))
    for name, (eta, net, seeds) in product(options.names, kinds):
        for part in _parts(seeds, options.cell_seeds):
            yield DenoiserCell(
                seed=config.seed, distribution=name, eta=eta, samples=options.samples,
                levels=options.levels, **net, **part,
            )  # fmt: skip


def _learners(config: ComplexityConfig) -> dict[str, Any]:
    """Returns the usual fields of a ``LearnerCell``."""
    options = config.learners
    return {
        "seed": config.seed, "ratio": middle(config), "width": options.width,
        "depth": options.depth, "batch": options.batch,
    }  # fmt: skip


def _samplers(config: ComplexityConfig) -> Iterator[SamplerCell]:
    options = config.learners
    common = _learners(config) | {
        "sizes": SAMPLER_SIZES, "width": 2 * options.width, "lengths": options.sampler_lengths,
        "samples": options.samples, "levels": options.levels,
    }  # fmt: skip
    for part in _parts(options.sampler_seeds, SAMPLER_SEEDS):
        yield SamplerCell(**common, **part)


def _networks(config: ComplexityConfig) -> Iterator[NetworkCell]:
    grid, options = config.grid, config.learners
    changes = [
        *({"ratio": ratio, "noise": noise}
          for ratio in grid.radii[::-1] for noise in ("fresh", "once")),
        *({"ratio": middle(config, FURTHER), "size": d} for d in grid.dims if d > 1),
        *({"panel": "varied", "width": width} for width in grid.widths),
        *({"panel": "varied", "depth": depth} for depth in grid.depths if depth != options.depth),
        *({"panel": "varied", "rarity": rarity} for rarity in _rarities(config)),
    ]  # fmt: skip
    common = _learners(config) | {"steps": options.steps}
    for change, part in product(changes, _parts(grid.seeds, grid.cell_seeds)):
        yield NetworkCell(**common | change, **part)


def _rarities(config: ComplexityConfig) -> list[float]:
    """Returns unusual weights of the far mode that are below δ, so not visible to a quantile."""
    usual = worst_eta(middle(config), EPSILON)
    return [x for x in config.grid.rarities if x != 1 and x * usual < DELTAS[-1]]


TITLED = ("distribution", "net", "ratio", "size", "width", "depth", "rarity", "eta", "noise",
          "panel", "first")  # fmt: skip
"""Fields in which cells of one kind differ."""


def title(cell: Cell) -> str:
    """Returns the kind of a cell and its values, as ``network, ratio 8, …, first 10``."""
    values = {name: getattr(cell, name, None) for name in TITLED}
    texts = (f"{name} {value if isinstance(value, str) else f'{value:g}'}"
             for name, value in values.items() if value is not None)  # fmt: skip
    return ", ".join([type(cell).__name__.removesuffix("Cell").lower(), *texts])
