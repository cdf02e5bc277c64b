"""What a search around the density pipeline can be told."""

from typing import Literal

from pydantic import Field, ValidationError, model_validator

from pipelines.config import DensityConfig, Training
from pipelines.config.files import for_objective, merge
from pipelines.config.objective import Objective
from tuning.config import SearchConfig, TuneConfig

Subject = Literal["architecture", "activation", "base", "anchor", "objective", "stabilisation",
                  "optimization", "preprocessing", "start"]  # fmt: skip

SUBJECTS: tuple[Subject, ...] = ("anchor", "objective", "stabilisation", "optimization")
"""What is searched over if nothing else is said."""


class DensitySearch(SearchConfig):
    """A search over trainings of a flow."""

    objectives: tuple[Objective, ...] = Field(
        (), description="objectives to choose from, besides the base's own"
    )
    over: tuple[Subject, ...] = Field(SUBJECTS, min_length=1, description="what is searched over")
    seeds: int = Field(
        3, ge=1, description="seeds of the trainings behind the search, none of them the trials'"
    )
    validate_every: int | None = Field(
        250, ge=1, description="steps between validations of a trial at most; None: the base's"
    )


class DensityTune(TuneConfig):
    """A search around the density pipeline."""

    search: DensitySearch = DensitySearch()
    base: DensityConfig = DensityConfig()

    @model_validator(mode="after")
    def _objectives_suit_the_base(self) -> "DensityTune":
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
    fields = merge(for_objective(base, name).model_dump(), {"objective": {"name": name}})
    return Training.model_validate(fields)
