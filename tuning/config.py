"""The options of ``ebflow tune density``, besides those of ``ebflow run density``."""

from typing import Literal

from pydantic import Field

from pipelines.config import DensityConfig, Section, Training

Subject = Literal[
    "architecture", "anchor", "objective", "stabilisation", "optimization", "preprocessing"
]

# Steps between validations of a trial at most: Tune stops a trial only after a validation.
VALIDATE_EVERY = 250


class SearchConfig(Section):
    """The search."""

    trials: int = Field(24, ge=1)
    """trials; the first is the default itself"""
    time_budget: float | None = Field(None, gt=0)
    """seconds after which all trials are stopped, s; None: no limit"""
    top: int = Field(3, ge=1)
    """best trials that are trained again, with the default"""
    over: tuple[Subject, ...] = Field(
        ("anchor", "objective", "stabilisation", "optimization"), min_length=1
    )
    """subjects whose options are searched"""
    seeds: int = Field(3, ge=1)
    """seeds of the trainings after the search; no trial uses them"""
    random: int = Field(8, ge=1)
    """first trials: the default, then the default with one subject at random, in turn; on a
    cluster so many are trained at a time. Results of earlier trials decide the later ones"""


class TuneConfig(Section):
    """A search around the density pipeline."""

    search: SearchConfig = SearchConfig()
    base: DensityConfig = DensityConfig()

    @property
    def name(self) -> str:
        """The name of the run: that of the density pipeline's."""
        return self.base.name

    @property
    def start(self) -> Training:
        """The training of the first trial: the default, validated often enough to be stopped."""
        every = min(VALIDATE_EVERY, self.base.train.validate_every)
        return self.base.training.changed(train={"validate_every": every})
