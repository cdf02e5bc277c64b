"""The options of the study of sample complexity, and their values at each scale."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from pipelines.config.files import merge
from pipelines.config.section import NAME, UNKEYED, Section

EPSILON = 0.35
"""The error ε to reach, multiplied by σ."""

DELTAS = (0.02, 0.05, 0.2, 0.1)
"""The masses δ of the quantile errors; m* uses the last."""

NEAREST = round(4 * EPSILON / DELTAS[-1] ** 0.5, 2)
"""The R/σ at which the weight η of the far mode is δ: nearer modes are too heavy."""

ONCE = AfterValidator(lambda values: tuple(sorted(set(values))))
SEVERAL = (Field(min_length=1), ONCE)
Radii = Annotated[tuple[Annotated[float, Field(gt=NEAREST)], ...], *SEVERAL]
Numbers = Annotated[tuple[PositiveFloat, ...], *SEVERAL]
Counts = Annotated[tuple[PositiveInt, ...], *SEVERAL]
Shares = Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], ONCE]
Name = Literal["digits", "mnist", "patches"]
Names = Annotated[
    tuple[Name, ...],
    Field(min_length=1),
    AfterValidator(lambda names: tuple(dict.fromkeys(names))),
]
LENGTHS = "training steps after which networks are measured"


class GridConfig(Section):
    """Distributions with a far mode: the values that are varied, and the repetitions."""

    radii: Radii = Field(
        (8.0, 16.0, 32.0, 64.0), description="R/σ, the distance of the far mode over σ"
    )
    dims: Counts = Field((1, 2, 4, 8), description="dimensions d")
    rarities: Numbers = Field(
        (1.0, 2.0, 4.0, 8.0), description="weights of the far mode, as multiples of its usual one"
    )
    widths: Counts = Field((8, 16, 32, 64), description="widths of networks")
    depths: Counts = Field((1, 2, 3, 4), description="hidden layers of networks")
    seeds: int = Field(30, ge=2, description="training sets of networks at each m")
    cell_seeds: int = Field(10, ge=1, description="training sets per stage")


class LearnersConfig(Section):
    """Networks that are trained on distributions with a far mode."""

    width: int = Field(32, ge=1, description="width of the hidden layers")
    depth: int = Field(2, ge=1, description="number of hidden layers")
    steps: int = Field(1000, ge=1, description="training steps")
    batch: int = Field(128, ge=1, description="samples per step")
    sampler_lengths: Counts = Field(
        (300, 1000, 3000), description=f"{LENGTHS}, if they learn all noise levels"
    )
    sampler_seeds: int = Field(12, ge=2, description="training sets of these networks")
    samples: int = Field(10_000, ge=100, description="samples of the reverse diffusion")
    levels: int = Field(80, ge=1, description="steps of the reverse diffusion")


class DistributionsConfig(Section):
    """Distributions fitted to images, and the denoisers that learn them."""

    names: Names = Field(("digits",), description="distributions; claims are about the first")
    etas: Shares = Field(
        (0.0005, 0.005, 0.05), description="weights η of a mode that is added to each"
    )
    sizes: Counts = Field((100, 1000, 10_000, 100_000), min_length=2, description="samples m")
    seeds: int = Field(8, ge=1, description="training sets")
    cell_seeds: int = Field(4, ge=1, description="training sets per stage")
    width: int = Field(128, ge=1, description="width of the residual networks")
    blocks: int = Field(3, ge=1, description="blocks of the residual networks")
    lengths: Counts = Field((300, 1000, 3000), min_length=2, description=LENGTHS)
    batch: int = Field(64, ge=1, description="samples per step")
    unet_sizes: Counts = Field((100, 10_000), min_length=2, description="samples m of U-Nets")
    unet_seeds: int = Field(4, ge=0, description="training sets of U-Nets; 0: no U-Nets")
    unet_channels: int = Field(16, ge=1, description="channels of U-Nets")
    unet_steps: int = Field(2000, ge=1, description="training steps of U-Nets")
    unet_batch: int = Field(32, ge=1, description="samples per step of U-Nets")
    samples: int = Field(1000, ge=100, description="samples of each network")
    levels: int = Field(20, ge=1, description="steps of the probability flow")


class ComplexityConfig(Section):
    """The study of sample complexity."""

    scale: Literal["smoke", "cpu", "full"] = Field(
        "cpu", description="size of the study: a minute, 10 minutes on two cores, or a cluster"
    )
    name: str = Field(
        "study", pattern=NAME, description="name of the run", json_schema_extra=UNKEYED
    )
    seed: int = Field(0, ge=0, description="seed of all random numbers")
    grid: GridConfig = GridConfig()
    learners: LearnersConfig = LearnersConfig()
    distributions: DistributionsConfig = DistributionsConfig()

    @model_validator(mode="before")
    @classmethod
    def _at_scale(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Returns the fields, completed by the defaults of their scale."""
        return merge(SCALES.get(str(fields.get("scale")), {}), fields)


SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "grid": {
            "radii": (8.0, 12.0, 16.0), "dims": (1, 2, 4), "rarities": (1.0, 2.0, 4.0),
            "widths": (8, 16, 24), "depths": (1, 2, 3), "seeds": 4, "cell_seeds": 4,
        },
        "learners": {
            "width": 16, "steps": 60, "batch": 64, "sampler_lengths": (30, 100),
            "sampler_seeds": 2, "samples": 2000, "levels": 20,
        },
        "distributions": {
            "etas": (0.05,), "sizes": (30, 100), "seeds": 2, "cell_seeds": 2, "width": 16,
            "blocks": 1, "lengths": (10, 20), "unet_sizes": (30, 100), "unet_seeds": 2,
            "unet_channels": 2, "unet_steps": 10, "samples": 100, "levels": 5,
        },
    },
    "cpu": {},
    "full": {
        "grid": {
            "radii": (8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0), "seeds": 96,
            "dims": (1, 2, 4, 8, 16, 32, 64), "widths": (16, 32, 64, 128), "cell_seeds": 12,
        },
        "learners": {
            "width": 64, "depth": 3, "steps": 4000, "sampler_lengths": (2000, 6000, 20_000),
            "sampler_seeds": 48, "samples": 50_000, "levels": 160,
        },
        "distributions": {
            "names": ("digits", "mnist", "patches"),
            "sizes": (100, 316, 1000, 3162, 10_000, 31_623, 100_000), "seeds": 32,
            "width": 256, "blocks": 4, "lengths": (2000, 6000, 20_000), "batch": 128,
            "unet_sizes": (100, 1000, 10_000, 100_000), "unet_seeds": 8, "unet_channels": 32,
            "unet_steps": 5000, "unet_batch": 128, "samples": 5000, "levels": 40,
        },
    },
}  # fmt: skip
"""Differences from the defaults."""

TITLE = "How many samples a score needs"
INTRO = (
    "A distribution with a bulk and a far mode of weight η at a distance R, smoothed by noise σ. "
    "Networks learn its score from m samples; their error is measured in mean square (σ L2) and "
    "at the (1 − δ)-quantile (σ Dᵟ). m* is the m from which on the median error over training "
    "sets stays at or below ε. The far mode has the weight at which missing it costs 2 ε in mean "
    "square, so η falls as (σ/R)². Beside it: distributions fitted to images, whose scores are "
    "exact at every noise level, with an added rare mode and without, and denoisers that learn "
    "all noise levels at once. Claims are about shapes, not constants."
)
