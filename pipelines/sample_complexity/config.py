"""What the study of sample complexity can be told, and what each of its cells is told.

A cell is one draw, fit and measurement, of many seeds at once, on one thread.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from tyro.constructors import PrimitiveConstructorSpec

from ebflow.complexity.closed_forms import worst_eta
from pipelines.config import NAME, UNKEYED, Section


def _listed(kind: type, name: str) -> PrimitiveConstructorSpec:
    """Lets numbers be typed apart or with commas: ``8 16 32`` or ``8,16,32``."""
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{name},…",
        instance_from_str=lambda words: tuple(
            kind(part) for word in words for part in word.split(",")
        ),
        is_instance=lambda found: isinstance(found, tuple),
        str_from_instance=lambda found: [",".join(f"{value:g}" for value in found)],
    )


SOME = Field(min_length=1)
Numbers = Annotated[tuple[PositiveFloat, ...], SOME, _listed(float, "FLOAT")]
Counts = Annotated[tuple[PositiveInt, ...], SOME, _listed(int, "INT")]
Classes = Annotated[tuple[Annotated[int, Field(ge=4)], ...], SOME, _listed(int, "INT")]
"""Sizes of classes of pairs of a side and a shift: at least one shift is false."""

Share = Annotated[float, Field(ge=0, lt=1)]
Shares = Annotated[tuple[Share, ...], SOME, _listed(float, "FLOAT")]
LENGTHS = "training steps, after each of which they are measured, the last their end"
Law = Literal["digits", "mnist", "patches"]


class GridConfig(Section):
    """What is varied, and how often it is tried."""

    radii: Numbers = Field(
        (8.0, 16.0, 32.0, 64.0, 128.0),
        description="R/σ, the distance of the far mode over the noise",
    )
    furthest: float = Field(64.0, gt=0, description="largest R/σ that networks are trained at")
    dims: Counts = Field((1, 2, 4, 8), description="dimensions d")
    classes: Classes = Field(
        (10, 30, 100, 300, 1000, 3000, 10000), description="sizes |H| of classes"
    )
    epsilon: float = Field(0.35, gt=0, description="error ε that is to be reached, times σ")
    deltas: Numbers = Field(
        (0.02, 0.05, 0.2, 0.1), description="masses δ of the quantile error, the last decides"
    )
    rarities: Numbers = Field(
        (1.0, 2.0, 4.0, 8.0),
        description="weights η of a far mode, over that at which missing it costs 2 ε; those "
        "below the last δ are tried",
    )
    widths: Counts = Field((8, 16, 32, 64), description="widths of networks")
    depths: Counts = Field((1, 2, 3, 4), description="hidden layers of networks")
    trials: int = Field(200, ge=2, description="training sets of every finite class")
    pair_trials: int = Field(2000, ge=2, description="training sets of a class of two")
    seeds: int = Field(30, ge=2, description="training sets, and networks, at every m")
    cell_seeds: int = Field(10, ge=1, description="seeds that share a cell")
    weights: int = Field(4000, ge=2, description="samples of an estimate of a mode's weight")
    estimates: int = Field(2000, ge=2, description="estimates of a mode's weight")

    @model_validator(mode="after")
    def _the_far_mode_is_rarer_than_the_quantile(self) -> "GridConfig":
        try:
            eta = worst_eta(min(self.radii), self.epsilon)
        except ValueError as error:
            raise ValueError(f"radii: {str(error).partition(': ')[2]}") from None
        if eta >= self.deltas[-1]:
            raise ValueError(
                f"deltas: found {self.deltas[-1]:g} as the last, with a far mode of weight "
                f"{eta:.3g} at R/σ = {min(self.radii):g}, expected more than that"
            )
        return self


class LearnersConfig(Section):
    """The learners that are trained."""

    width: int = Field(32, ge=1, description="width of the networks' hidden layers")
    depth: int = Field(2, ge=1, description="their number")
    steps: int = Field(1000, ge=1, description="training steps of a network")
    batch: int = Field(128, ge=1, description="samples a step")
    sampler_lengths: Counts = Field(
        (300, 1000, 3000), description=f"of networks for all noises, of twice the width: {LENGTHS}"
    )
    sampler_seeds: int = Field(12, ge=2, description="training sets of networks for samplers")
    samples: int = Field(10_000, ge=100, description="samples that a sampler draws")
    levels: int = Field(80, ge=1, description="steps of the reverse diffusion")
    flow_seeds: int = Field(12, ge=2, description="training sets of a flow at every m")
    flow_steps: int = Field(500, ge=1, description="training steps of a flow")


class LawsConfig(Section):
    """Laws that look like data, and the denoisers that learn them."""

    names: tuple[Law, ...] = Field(("digits",), min_length=1, description="laws")
    etas: Shares = Field(
        (0.0, 0.0005, 0.005, 0.05), description="weights η of an implanted mode, 0: none"
    )
    sizes: Counts = Field(
        (100, 1000, 10_000, 100_000), min_length=2, description="training samples m"
    )
    seeds: int = Field(8, ge=1, description="training sets, and networks, at every m")
    cell_seeds: int = Field(4, ge=1, description="seeds that share a cell")
    width: int = Field(128, ge=1, description="width of the residual networks")
    blocks: int = Field(3, ge=1, description="their blocks")
    lengths: Counts = Field((300, 1000, 3000), min_length=2, description=LENGTHS)
    batch: int = Field(64, ge=1, description="samples a step")
    unet_sizes: Counts = Field(
        (100, 10_000), min_length=2, description="training samples of U-Nets"
    )
    unet_seeds: int = Field(4, ge=0, description="training sets of U-Nets, 0: there are none")
    unet_channels: int = Field(16, ge=1, description="their channels on the pixels")
    unet_steps: int = Field(2000, ge=1, description="their training steps")
    unet_batch: int = Field(32, ge=1, description="their samples a step")
    samples: int = Field(1000, ge=100, description="samples that each network draws")
    levels: int = Field(20, ge=1, description="steps of the probability flow")

    @model_validator(mode="after")
    def _each_is_named_once(self) -> "LawsConfig":
        for name in ("names", "etas", "sizes", "unet_sizes", "lengths"):
            found = getattr(self, name)
            if len(set(found)) < len(found):
                listed = ",".join(map(str, found))
                raise ValueError(f"{name}: found {listed}, expected each once")
        if self.lengths != tuple(sorted(self.lengths)):
            listed = ",".join(map(str, self.lengths))
            raise ValueError(f"lengths: found {listed}, expected them to rise")
        return self


class ComplexityConfig(Section):
    """The study of sample complexity: draw, fit and measure, fit exponents, report."""

    scale: Literal["smoke", "cpu", "full"] = Field(
        "cpu",
        description="size of the grid: for a minute, for two cores (10 minutes), or a cluster's",
    )
    name: str = Field(
        "study", pattern=NAME, description="name of the run", json_schema_extra=UNKEYED
    )
    seed: int = Field(0, ge=0, description="seed of everything that is drawn")
    grid: GridConfig = GridConfig()
    learners: LearnersConfig = LearnersConfig()
    laws: LawsConfig = LawsConfig()

    @property
    def network_radii(self) -> tuple[float, ...]:
        """The R/σ that networks are trained at."""
        return tuple(ratio for ratio in self.grid.radii if ratio <= self.grid.furthest)


def at_scale(scale: str) -> ComplexityConfig:
    """Returns the configuration of a scale."""
    return ComplexityConfig(scale=scale, **SCALES[scale])


SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "grid": {
            "radii": (8.0, 12.0, 16.0), "furthest": 16.0, "dims": (1, 2, 4),
            "classes": (10, 100, 1000), "trials": 20, "pair_trials": 200, "seeds": 4,
            "cell_seeds": 4, "rarities": (1.0, 2.0, 4.0), "widths": (8, 16, 24),
            "depths": (1, 2, 3), "weights": 500, "estimates": 100,
        },
        "learners": {
            "width": 16, "steps": 60, "batch": 64, "sampler_lengths": (30, 100),
            "sampler_seeds": 2, "samples": 2000, "levels": 20, "flow_seeds": 2, "flow_steps": 30,
        },
        "laws": {
            "etas": (0.0, 0.05), "sizes": (30, 100), "seeds": 2, "cell_seeds": 2, "width": 16,
            "blocks": 1, "unet_sizes": (30, 100), "unet_seeds": 2, "unet_channels": 2,
            "unet_steps": 10, "lengths": (10, 20), "samples": 100, "levels": 5,
        },
    },
    "cpu": {},
    "full": {
        "grid": {
            "radii": (8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0), "furthest": 512.0,
            "dims": (1, 2, 4, 8, 16, 32, 64), "widths": (16, 32, 64, 128),
            "trials": 400, "seeds": 96, "cell_seeds": 12, "estimates": 10_000,
        },
        "learners": {
            "width": 64, "depth": 3, "steps": 4000, "sampler_lengths": (2000, 6000, 20_000),
            "sampler_seeds": 48, "samples": 50_000, "levels": 160, "flow_seeds": 64,
            "flow_steps": 1000,
        },
        "laws": {
            "names": ("digits", "mnist", "patches"),
            "sizes": (100, 316, 1000, 3162, 10_000, 31_623, 100_000), "seeds": 32,
            "width": 256, "blocks": 4, "lengths": (2000, 6000, 20_000), "batch": 128,
            "samples": 5000, "levels": 40, "unet_sizes": (100, 1000, 10_000, 100_000),
            "unet_seeds": 8, "unet_channels": 32, "unet_steps": 5000, "unet_batch": 128,
        },
    },
}  # fmt: skip
"""What differs from the defaults, by scale."""


class CellConfig(Section):
    """A cell.

    Attributes:
        seed: The study's seed.
        first: The first of its training sets.
        count: Their number.
    """

    seed: int
    first: int = 0
    count: int


class TwoPointCell(CellConfig):
    """The far mode on the right or the wrong side."""

    ratio: float
    epsilon: float


class FiniteCell(CellConfig):
    """A class of 45 laws; ``eta`` None: the far mode's worst weight."""

    ratio: float
    size: int
    epsilon: float
    eta: float | None = None
    deltas: tuple[float, ...]


class ClassCell(CellConfig):
    """A class of ``hypotheses`` pairs: places of the far mode × shifts across."""

    ratio: float
    size: int
    hypotheses: int
    epsilon: float
    deltas: tuple[float, ...]


class StepCell(CellConfig):
    """An easy truth and the score with a step at ``at``."""

    at: float
    epsilon: float


class LearnerCell(CellConfig):
    """Networks that learn a far mode."""

    ratio: float
    size: int
    epsilon: float
    deltas: tuple[float, ...]
    width: int
    depth: int
    batch: int


class NetworkCell(LearnerCell):
    """Networks at every m, for one noise of the data; ``rarity``: η over its worst value."""

    noise: Literal["once", "fresh"]
    panel: Literal["networks", "varied"] = "networks"
    rarity: float = 1.0
    steps: int


class SamplerCell(LearnerCell):
    """Networks for all noises, and what a sampler makes of them."""

    sizes: tuple[int, ...]
    lengths: tuple[int, ...]
    samples: int
    levels: int


class DenoiserCell(CellConfig):
    """Denoisers for all noises of a law that looks like data, at every m."""

    law: Law
    eta: float
    sizes: tuple[int, ...]
    net: Literal["residual", "unet"] = "residual"
    width: int
    blocks: int = 1
    lengths: tuple[int, ...]
    batch: int
    samples: int
    levels: int


class PairCell(CellConfig):
    """Two Gaussians on the line, by one objective at every m; None: no sample is seen twice."""

    a: float
    objective: Literal["ml", "ism", "dsm0.3", "dsm1"]
    sizes: tuple[int | None, ...]
    steps: int


class WeightCell(CellConfig):
    """Estimates of a mode's weight, modes at ±a."""

    a: float
    estimator: Literal["ml", "ism", "dsm"]
    sigma: float
    samples: int
