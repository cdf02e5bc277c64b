"""What every search can be told, whatever its trials train."""

from typing import Self, get_args

from pydantic import Field, model_validator

from pipelines.config import UNKEYED, Section


class SearchConfig(Section):
    """The search, besides what its trials have in common."""

    trials: int = Field(24, ge=1, description="trials; the first is the base itself")
    max_concurrent: int | None = Field(
        None,
        ge=1,
        description="trials at a time at most; None: as many as this machine has room for, or on "
        "a cluster, which may grow for them, as many as random",
    )
    time_budget: float | None = Field(
        None, gt=0, description="seconds after which trials are stopped, s; None: no bound"
    )
    top: int = Field(3, ge=1, description="best trials that are trained again, beside the base")
    seeds: int = Field(3, ge=1, description="seeds of these trainings, none of them the trials'")
    over: tuple[str, ...]
    goals: tuple[str, ...]
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

    @model_validator(mode="after")
    def _the_first_goal_is_there(self) -> Self:
        known = get_args(get_args(type(self).model_fields["goals"].annotation)[0])
        if self.goals not in (known[:1], known):
            found, both = " ".join(self.goals), " ".join(known)
            raise ValueError(f"goals: found {found}, expected {known[0]}, or {both}")
        return self


class TuneConfig(Section):
    """A search around a pipeline."""

    name: str = Field(description="name of the run", json_schema_extra=UNKEYED)
    search: SearchConfig
    base: Section
