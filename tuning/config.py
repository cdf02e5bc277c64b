"""What a search can be told."""

__all__ = ["SUBJECTS", "SearchConfig", "TuneConfig", "with_objective"]

from typing import Literal

from pydantic import Field, ValidationError, model_validator

from pipelines.config import UNKEYED, DensityConfig, Section, Training
from pipelines.config_files import for_objective, merge
from pipelines.options import Objective

Subject = Literal["anchor", "objective", "stabilisation", "optimisation", "preprocessing", "start"]

SUBJECTS: tuple[Subject, ...] = ("anchor", "objective", "stabilisation", "optimisation")
"""What is searched over if nothing else is said."""


class SearchConfig(Section):
    """The search, besides what its trials have in common."""

    trials: int = Field(24, ge=1, description="trials; the first is the base itself")
    max_concurrent: int | None = Field(
        None, ge=1, description="trials at a time at most; None: as many as there is room for"
    )
    time_budget: float | None = Field(
        None, gt=0, description="seconds after which trials are stopped, s; None: no bound"
    )
    top: int = Field(3, ge=1, description="best trials that are trained again, beside the base")
    seeds: int = Field(3, ge=1, description="seeds of these trainings, none of them the trials'")
    objectives: tuple[Objective, ...] = Field(
        (), description="objectives to choose from, besides the base's own"
    )
    over: tuple[Subject, ...] = Field(SUBJECTS, min_length=1, description="what is searched over")
    goals: tuple[Literal["nll", "seconds"], ...] = Field(
        ("nll",),
        min_length=1,
        description="what is to be small: nll, or nll and seconds (training time), for which "
        "trials that no other beats in both are found, and none is stopped early",
    )
    grace: float = Field(
        0.2, gt=0, le=1, description="share of its training that every trial gets"
    )
    reduction: float = Field(
        3.0, gt=1, description="one in how many trials goes on beyond the grace, and again later"
    )
    random: int = Field(
        8,
        ge=1,
        description="first trials: the base, then the base with one subject at random, in turn; "
        "what follows is proposed from what earlier ones gave",
    )
    validate_every: int | None = Field(
        250, ge=1, description="steps between validations of a trial at most; None: the base's"
    )

    @model_validator(mode="after")
    def _nll_is_a_goal(self) -> "SearchConfig":
        if self.goals not in (("nll",), ("nll", "seconds")):
            raise ValueError(f"goals: found {' '.join(self.goals)}, expected nll, or nll seconds")
        return self


class TuneConfig(Section):
    """A search around the density pipeline."""

    name: str = Field("density", description="name of the run", json_schema_extra=UNKEYED)
    search: SearchConfig = SearchConfig()
    base: DensityConfig = DensityConfig()

    @model_validator(mode="after")
    def _seconds_vary(self) -> "TuneConfig":
        bound = self.base.train.max_seconds
        if "seconds" in self.search.goals and bound is not None:
            raise ValueError(
                f"goals: found seconds with trainings that all take {bound:g} s, expected "
                "train.max_seconds None and a bound by train.steps"
            )
        return self

    @model_validator(mode="after")
    def _objectives_suit_the_base(self) -> "TuneConfig":
        for name in self.search.objectives:
            try:
                with_objective(self.base.training, name)
            except ValidationError as error:
                first = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"objectives: found {name}; {first}") from None
        return self


def with_objective(base: Training, name: str) -> Training:
    """Returns the base with another objective, and of the options those that it uses.

    Raises:
        ValidationError: If the rest of the base does not suit it.
    """
    told = merge(for_objective(base, name).model_dump(), {"objective": {"name": name}})
    return Training.model_validate(told)
