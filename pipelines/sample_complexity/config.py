"""The options of the study, their values at each scale, and its cells."""

from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from pipelines.config.files import merge
from pipelines.config.section import NAME, UNKEYED, Section

EPSILON = 0.35  # The error ε to reach, multiplied by σ
DELTAS = (0.02, 0.05, 0.2, 0.1)  # The masses δ of the quantile errors; m* uses the last

# The R/σ at which the weight η of the far mode is δ: nearer modes are too heavy.
NEAREST = round(4 * EPSILON / DELTAS[-1] ** 0.5, 2)


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names without repetitions, in their order."""
    return tuple(dict.fromkeys(names))


ONCE = AfterValidator(lambda values: tuple(sorted(set(values))))
SEVERAL = (Field(min_length=1), ONCE)
Radii = Annotated[tuple[Annotated[float, Field(gt=NEAREST)], ...], *SEVERAL]
Counts = Annotated[tuple[PositiveInt, ...], *SEVERAL]
Shares = Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], ONCE]
Classes = Annotated[tuple[Annotated[int, Field(ge=2)], ...], *SEVERAL]
Positive = Annotated[tuple[PositiveFloat, ...], *SEVERAL]
Numbers = Annotated[tuple[Annotated[int, Field(ge=2)], ...], *SEVERAL]
Name = Literal["digits", "mnist", "patches"]
Names = Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(_each_once)]


class GridConfig(Section):
    """Distributions with a far mode: the values that are varied, and the repetitions."""

    trials: int = Field(200, ge=2, description="training sets of the finite class at each R/σ")
    radii: Radii = Field(
        (8.0, 16.0, 32.0, 64.0), description="R/σ, the distance of the far mode over σ"
    )
    furthest: float = Field(64.0, gt=NEAREST, description="largest R/σ that networks learn")
    dims: Counts = Field((1, 2, 4, 8), description="dimensions d")
    widths: Counts = Field((8, 16, 32, 64), description="widths of networks that are compared")
    depths: Counts = Field((1, 2, 3, 4), description="hidden layers of networks compared")
    seeds: int = Field(30, ge=2, description="training sets of networks at each m")

    @model_validator(mode="after")
    def _networks_learn_something(self) -> "GridConfig":
        if self.furthest < self.radii[0]:
            raise ValueError(
                f"furthest: found {self.furthest:g}, expected at least the least of radii, "
                f"{self.radii[0]:g}"
            )
        return self

    @property
    def learned(self) -> tuple[float, ...]:
        """The R/σ that networks learn."""
        return tuple(ratio for ratio in self.radii if ratio <= self.furthest)


class ClassesConfig(Section):
    """Finite classes of scores, from which nothing is trained."""

    trials: int = Field(500, ge=2, description="training sets of every class")
    sizes: Classes = Field(
        (10, 30, 100, 300, 1000, 3000, 10_000), description="numbers |H| of hypotheses"
    )
    dims: Counts = Field((4, 8, 16, 32, 64), description="dimensions d of the class")
    epsilons: Positive = Field((0.18, 0.25, 0.35, 0.5), description="errors ε to reach")
    deltas: Shares = Field((0.02, 0.05, 0.1, 0.2), description="masses δ beyond the quantile")
    places: Positive = Field(
        (2.0, 2.5, 3.0, 3.5, 4.0), description="places t of a step that no minimizer sees"
    )


class LearnersConfig(Section):
    """Networks that learn distributions with a far mode."""

    width: int = Field(32, ge=1, description="width of the hidden layers")
    depth: int = Field(2, ge=1, description="number of hidden layers")
    steps: int = Field(1000, ge=1, description="training steps")
    batch: int = Field(128, ge=1, description="samples per step")


class Denoising(Section):
    """Denoisers that learn a distribution fitted to images."""

    sizes: Counts = Field((100, 1000, 10_000, 100_000), min_length=2, description="samples m")
    width: int = Field(128, ge=1, description="width of the residual networks")
    blocks: int = Field(3, ge=1, description="blocks of the residual networks")
    lengths: Counts = Field(
        (300, 1000, 3000),
        min_length=2,
        description="training steps after which networks are measured",
    )
    batch: int = Field(64, ge=1, description="samples per step")
    levels: int = Field(20, ge=1, description="noise levels, less one")


class DistributionConfig(Denoising):
    """A distribution fitted to images, and the denoisers that learn it."""

    name: Name = Field("digits", description="the distribution")
    etas: Shares = Field((0.0005, 0.005, 0.05), description="weights η of a mode that is added")
    seeds: int = Field(8, ge=1, description="training sets")


class FlowsConfig(Section):
    """Flows and free networks that learn one noise level of a distribution with a far mode."""

    sizes: Counts = Field((16, 64, 256, 1024), description="samples m")
    levels: Positive = Field((1.0, 4.0, 16.0), description="noise levels, over σ")
    seeds: int = Field(16, ge=2, description="training sets")
    size: int = Field(2, ge=1, description="dimension d")
    depth: int = Field(4, ge=1, description="layers of the flows")
    width: int = Field(32, ge=1, description="width of the networks")
    steps: int = Field(1000, ge=1, description="training steps")
    batch: int = Field(128, ge=1, description="samples per step")


class ImagesConfig(Section):
    """Diffusion models of images, U-Nets, and pictures of their samples."""

    names: Names = Field(("digits", "mnist"), description="the distributions")
    sizes: Counts = Field((100, 10_000), min_length=2, description="samples m")
    seeds: int = Field(
        6, ge=2, description="training sets of the first distribution; the others have one"
    )
    width: int = Field(16, ge=1, description="channels of the U-Nets on the pixels")
    steps: int = Field(1000, ge=1, description="training steps")
    batch: int = Field(32, ge=1, description="samples per step")
    levels: int = Field(40, ge=2, description="steps of the sampler, the probability flow")


class SamplingConfig(Section):
    """Samplers with exact and with spoiled scores of a far mode."""

    seeds: int = Field(8, ge=2, description="repetitions")
    samples: int = Field(50_000, ge=100, description="samples of each repetition")
    steps: int = Field(40, ge=2, description="steps N of the samplers")
    numbers: Numbers = Field((10, 40, 160), min_length=2, description="steps N that are compared")
    fewer: int = Field(
        10_000, ge=100, description="samples of a learned score, and of a number of steps"
    )
    ratio: float = Field(
        32.0, gt=NEAREST, description="R/σ of learned scores: η should be less than δ/N"
    )
    networks: int = Field(8, ge=2, description="training sets of learned scores")
    sizes: Counts = Field((64, 256, 1024), description="samples m of learned scores")
    width: int = Field(64, ge=1, description="width of the networks of learned scores")
    batch: int = Field(128, ge=1, description="samples per training step of learned scores")
    training: int = Field(1000, ge=1, description="training steps of learned scores")
    deltas: Shares = Field((0.05, 0.1, 0.2), min_length=1, description="spoiled masses δ")
    epsilons: Shares = Field((0.1, 0.2, 0.4), min_length=1, description="errors ε elsewhere")


class ComplexityConfig(Section):
    """The study of sample complexity."""

    scale: Literal["smoke", "cpu", "full"] = Field(
        "cpu",
        description="size of the study: a minute, or 10 minutes, on two cores; full: a cluster's",
    )
    name: str = Field(
        "study", pattern=NAME, description="name of the run", json_schema_extra=UNKEYED
    )
    seed: int = Field(0, ge=0, description="seed of all random numbers")
    grid: GridConfig = GridConfig()
    classes: ClassesConfig = ClassesConfig()
    learners: LearnersConfig = LearnersConfig()
    distribution: DistributionConfig = DistributionConfig()
    sampling: SamplingConfig = SamplingConfig()
    flows: FlowsConfig = FlowsConfig()
    images: ImagesConfig = ImagesConfig()

    @model_validator(mode="before")
    @classmethod
    def _at_scale(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Returns the fields, completed by the defaults of their scale."""
        return merge(SCALES.get(fields.get("scale", "cpu"), {}), fields)


# The defaults of a scale that differ from those of scale cpu.
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "grid": {
            "radii": (8.0, 12.0, 16.0, 32.0, 64.0), "furthest": 16.0, "dims": (1, 2, 4),
            "widths": (8, 16, 24), "depths": (1, 2, 3), "seeds": 4,
        },
        "classes": {
            "trials": 300, "sizes": (10, 100, 1000), "dims": (4, 16, 64),
            "epsilons": (0.25, 0.35, 0.5), "deltas": (0.05, 0.1, 0.2), "places": (2.0, 2.5, 3.0),
        },
        "learners": {"width": 16, "steps": 60, "batch": 64},
        "distribution": {
            "etas": (0.05,), "sizes": (30, 100), "seeds": 2, "width": 16, "blocks": 1,
            "lengths": (10, 20), "levels": 5,
        },
        "sampling": {
            "seeds": 6, "samples": 4000, "fewer": 4000, "numbers": (10, 40), "networks": 6,
            "sizes": (64, 128),
        },
        "flows": {"sizes": (16, 64), "seeds": 2, "depth": 2, "steps": 30, "batch": 32},
        "images": {
            "names": ("digits",), "sizes": (30, 100), "seeds": 2, "width": 2, "steps": 20,
            "batch": 16, "levels": 5,
        },
    },
    "full": {
        "grid": {
            "trials": 400, "radii": (8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0),
            "furthest": 512.0, "dims": (1, 2, 4, 8, 16, 32, 64), "widths": (32, 64, 128, 256),
            "depths": (2, 3, 4), "seeds": 32,
        },
        "classes": {"trials": 2000},
        "learners": {"width": 64, "depth": 3, "steps": 4000},
        "distribution": {
            "sizes": (100, 316, 1000, 3162, 10_000, 31_623, 100_000, 2**20), "seeds": 32,
            "width": 256, "blocks": 4, "lengths": (2000, 6000, 20_000), "batch": 128,
            "levels": 40,
        },
        "sampling": {
            "seeds": 32, "samples": 200_000, "fewer": 50_000, "steps": 160,
            "numbers": (10, 40, 160, 640), "networks": 32, "width": 128, "training": 20_000,
            "sizes": (64, 256, 1024, 4096, 16_384),
        },
        "flows": {
            "sizes": (16, 32, 64, 128, 256, 512, 1024, 2048, 4096), "seeds": 32,
            "levels": (1.0, 2.0, 4.0, 8.0, 16.0), "steps": 4000,
        },
        "images": {
            "names": ("digits", "mnist", "patches"),
            "sizes": (100, 1000, 10_000, 100_000), "seeds": 8, "width": 32, "steps": 20_000,
            "batch": 128, "levels": 160,
        },
    },
}  # fmt: skip

TITLE = "How many samples a score needs"
INTRO = (
    "A distribution with a bulk and a far mode of weight η at a distance R, smoothed by noise σ. "
    "A finite class and networks learn its score from m samples; their error is measured in mean "
    "square (σ L2) and at the (1 − δ)-quantile (σ Dᵟ). m* is the m from which on the median error "
    "over training sets stays at or below ε. The far mode has the weight at which missing it "
    "costs 2 ε in mean square, so η falls as (σ/R)². Beside it: a distribution fitted to images, "
    "whose scores are exact at every noise level, with an added rare mode and without, and "
    "denoisers that learn all noise levels at once. Claims are about shapes, not constants."
)

# Index of the R/σ at which the dimension varies: there the far mode decides, not the bulk.
FURTHER = 2


# Training sets per cell, at most
DENOISER_SETS = 4
NETWORK_SETS = 10
FLOW_SETS = 8
IMAGE_SETS = 2
LEARNED_SETS = 4


class Cell(Section):
    """Training sets ``first`` … ``first + count - 1`` of one setting."""

    seed: int
    first: int = 0
    count: int

    @property
    def sets(self) -> range:
        """The indices of the training sets."""
        return range(self.first, self.first + self.count)


class FiniteCell(Cell):
    """Empirical risk minimization over a finite class, for a distribution with a far mode."""

    ratio: float


class TwoPointCell(Cell):
    """Empirical risk minimization over the two sides of the far mode, at every R/σ."""

    ratios: tuple[float, ...]


class ClassCell(Cell):
    """Empirical risk minimization over random classes, of which one quantity is varied."""

    against: Literal["log |H|", "d", "1/ε", "1/δ"]
    values: tuple[float, ...]


class StepCell(Cell):
    """Empirical risk minimization over an easy truth and two rivals with a step at each place."""

    places: tuple[float, ...]


class NetworkCell(Cell):
    """Networks for one noise level of a distribution with a far mode.

    They see one noise vector per sample, or fresh ones.
    """

    ratio: float
    size: int = 1
    width: int
    depth: int
    batch: int
    noise: Literal["once", "fresh"] = "fresh"
    steps: int


class SpoiledCell(Cell):
    """Samplers with exact and with spoiled scores of a far mode."""

    ratio: float
    samples: int
    steps: int
    deltas: tuple[float, ...]
    epsilons: tuple[float, ...]


class StepsCell(Cell):
    """Samplers with different numbers of steps, with an exact and with a spoiled score."""

    ratio: float
    samples: int
    numbers: tuple[int, ...]
    delta: float


class LearnedCell(Cell):
    """Networks for all noise levels of a far mode, and samples by them."""

    ratio: float
    sizes: tuple[int, ...]
    width: int
    steps: int
    batch: int
    samples: int
    levels: int


class DenoiserCell(Denoising, Cell):
    """Networks for all noise levels of a distribution fitted to images.

    ``eta`` is the weight of a mode that is added; 0: none.
    """

    distribution: Name
    eta: float


class FlowCell(Cell):
    """Flows and free networks of one noise level, from the same training sets."""

    ratio: float
    level: float
    size: int
    sizes: tuple[int, ...]
    depth: int
    width: int
    steps: int
    batch: int


class ImageCell(Cell):
    """U-Nets for all noise levels of a distribution fitted to images, and their samples."""

    distribution: Name
    sizes: tuple[int, ...]
    width: int
    steps: int
    batch: int
    levels: int


def cells(config: ComplexityConfig) -> list[Cell]:
    """Returns all cells, the slowest first."""
    grid, options, common = config.grid, config.distribution, {"seed": config.seed}
    denoisers = options.model_dump(include={*Denoising.model_fields})
    return [
        *_images(config),
        *_flows(config),
        *(DenoiserCell(distribution=options.name, eta=eta, **common, **denoisers, **part)
          for eta in (0.0, *options.etas) for part in _parts(options.seeds, DENOISER_SETS)),
        *_sampling(config),
        *(FiniteCell(count=grid.trials, ratio=ratio, **common) for ratio in grid.radii),
        *_classes(config),
        *(NetworkCell(**common | config.learners.model_dump() | change, **part)
          for change in _changes(config) for part in _parts(grid.seeds, NETWORK_SETS)),
    ]  # fmt: skip


def _sampling(config: ComplexityConfig) -> Iterator[Cell]:
    """Yields the cells of samplers."""
    sampling = config.sampling
    common = {"seed": config.seed, "samples": sampling.fewer}
    for part in _parts(sampling.networks, LEARNED_SETS):
        yield LearnedCell(
            ratio=sampling.ratio, sizes=sampling.sizes, width=sampling.width,
            steps=sampling.training, batch=sampling.batch, levels=sampling.steps, **common, **part,
        )  # fmt: skip
    common |= {"ratio": middle(config), "count": sampling.seeds}
    yield StepsCell(numbers=sampling.numbers, delta=sampling.deltas[-1], **common)
    yield SpoiledCell(
        steps=sampling.steps, deltas=sampling.deltas, epsilons=sampling.epsilons,
        **common | {"samples": sampling.samples},
    )  # fmt: skip


def _images(config: ComplexityConfig) -> Iterator[ImageCell]:
    """Yields the cells of U-Nets, those of the largest images first."""
    images = config.images
    options = images.model_dump(exclude={"names", "seeds"})
    for name in images.names[::-1]:
        seeds = images.seeds if name == images.names[0] else 1
        for part in _parts(seeds, IMAGE_SETS):
            yield ImageCell(distribution=name, seed=config.seed, **options, **part)


def _flows(config: ComplexityConfig) -> Iterator[FlowCell]:
    """Yields the cells of flows at each noise level."""
    flows = config.flows
    options = flows.model_dump(exclude={"levels", "seeds"}) | {"ratio": middle(config)}
    for level in flows.levels:
        for part in _parts(flows.seeds, FLOW_SETS):
            yield FlowCell(level=level, seed=config.seed, **options, **part)


def _classes(config: ComplexityConfig) -> Iterator[Cell]:
    """Yields the cells of finite classes but that of ``FiniteCell``."""
    classes, common = config.classes, {"seed": config.seed, "count": config.classes.trials}
    varied = {
        "log |H|": classes.sizes, "d": classes.dims, "1/ε": classes.epsilons,
        "1/δ": classes.deltas,
    }  # fmt: skip
    for against, values in varied.items():
        yield ClassCell(against=against, values=values, **common)
    yield TwoPointCell(ratios=config.grid.radii, **common)
    yield StepCell(places=classes.places, **common)


def _parts(count: int, size: int) -> list[dict[str, int]]:
    """Returns the first training set and the number of sets of each cell."""
    return [{"first": k, "count": min(size, count - k)} for k in range(0, count, size)]


def _changes(config: ComplexityConfig) -> Iterator[dict[str, Any]]:
    """Yields the settings of networks, in which one quantity is varied at a time."""
    grid = config.grid
    for ratio, noise in product(grid.learned[::-1], ("fresh", "once")):
        yield {"ratio": ratio, "noise": noise}
    for size in (d for d in grid.dims if d > 1):
        yield {"ratio": middle(config, FURTHER), "size": size}
    for width in (width for width in grid.widths if width != config.learners.width):
        yield {"ratio": middle(config), "width": width}
    for depth in (depth for depth in grid.depths if depth != config.learners.depth):
        yield {"ratio": middle(config), "depth": depth}


def middle(config: ComplexityConfig, index: int = 1) -> float:
    """Returns the R/σ at which other quantities vary."""
    radii = config.grid.learned
    return radii[min(index, len(radii) - 1)]


def title(cell: Cell) -> str:
    """Returns the kind of a cell and its single values, as ``network, first 10, ratio 8.0, …``."""
    kind = type(cell).__name__.removesuffix("Cell").lower()
    values = cell.model_dump(exclude={"seed", "count", "batch"}).items()
    single = (f"{name} {value}" for name, value in values if not isinstance(value, tuple))
    return ", ".join([kind, *single])
