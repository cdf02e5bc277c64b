"""What is done with a trained flow."""

__all__ = ["DivergeConfig", "EvaluateConfig", "FillConfig", "ImputeConfig"]

from typing import Literal

from pydantic import Field

from pipelines.config.section import UNKEYED, Section


class EvaluateConfig(Section):
    """The test."""

    draws: int = Field(1, ge=1, description="dequantisation draws an example")
    importance_weighted: bool = Field(
        False, description="log-mean-exp over the draws (a tighter bound) instead of their mean"
    )
    batch_size: int = Field(
        1000, ge=1, description="examples at a time", json_schema_extra=UNKEYED
    )
    seed: int = Field(0, ge=0, description="seed of the draws")


class DivergeConfig(Section):
    """How a flow differs from an exact density in the plane."""

    density: Literal["sine", "swirl", "checkerboard"] = Field(
        "sine", description="density, smoothed by sigma"
    )
    sigma: float = Field(0.375, gt=0, description="noise, in the units of the data")
    samples: int = Field(10_000, ge=2, description="fresh points of the density")
    seed: int = Field(0, ge=0, description="seed of the points")
    extent: float = Field(9.0, gt=0, description="half the side of the pictures")
    resolution: int = Field(120, ge=2, description="pixels a side of the pictures")


class ImputeConfig(Section):
    """Imputation of missing pixels of test images, by the flow's paper's chain and Langevin's."""

    images: int = Field(32, ge=1, description="test images at most")
    draws: int = Field(2, ge=1, description="chains an image, of each sampler")
    steps: int = Field(500, ge=1, description="steps of a chain")
    step: float = Field(
        1.0,
        gt=0,
        lt=2,
        description="step of Langevin's diffusion, over the inverse of the largest curvature of "
        "-log p (no unit; stable below 2)",
    )
    momentum: float = Field(
        0.95,
        ge=0,
        lt=1,
        description="share of the velocity that a step keeps in Langevin's with momentum",
    )
    h: float = Field(
        0.5,
        gt=0,
        description="h of the paper's chain, in units of the scaled logits; lowered to "
        "where its drift is stable",
    )
    snr: float = Field(0.1, ge=0, description="size of the paper's noise (no unit)")
    smoothing: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="weight of the blurred image in a step of the paper's chain; lowered with h "
        "squared",
    )
    shrinkage: float = Field(
        1e-3,
        ge=0,
        lt=1,
        description="share of the identity in the correlations of the Gaussian beside the flow",
    )
    seed: int = Field(0, ge=0, description="seed of masks and chains")
    threads: int = Field(2, ge=1, description="threads", json_schema_extra=UNKEYED)

    @property
    def needs(self) -> dict[str, float]:
        """The CPU cores that it keeps busy."""
        return {"CPU": self.threads}


class FillConfig(Section):
    """Entries that are removed from a table, put back by a flow trained without them."""

    share: float = Field(0.2, gt=0, lt=1, description="share of the entries that is removed")
    draws: int = Field(20, ge=2, description="draws of a test row")
    seconds: float | None = Field(None, gt=0, description="training seconds; None: the steps")
    steps: int = Field(6_000, ge=1, description="training steps at most")
    seed: int = Field(0, ge=0, description="seed of what is removed, of training and of draws")
    threads: int = Field(1, ge=1, description="threads")

    @property
    def needs(self) -> dict[str, float]:
        """The CPU cores that it keeps busy."""
        return {"CPU": self.threads}
