"""What every search can be told, whatever its trials train."""

from pydantic import Field

from pipelines.config import Section
from pipelines.data.splits import SELECTION

SPLITS = {"select": SELECTION, "test": "test"}
"""Rows by the prefix of their numbers: the first name the winner, the others compare it."""


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
    over: tuple[str, ...]
    grace: float = Field(
        0.2, gt=0, le=1, description="share of its training that every trial gets"
    )
    random: int = Field(
        8,
        ge=1,
        description="first trials: the base, then the base with one subject at random, in turn; "
        "what follows is proposed from what earlier ones gave",
    )


class TuneConfig(Section):
    """A search around a pipeline."""

    search: SearchConfig
    base: Section

    @property
    def name(self) -> str:
        """What the run is called: as one of the pipeline."""
        return self.base.name
