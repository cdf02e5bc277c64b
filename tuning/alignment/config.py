"""What a search around the study of gradient alignment can be told."""

from typing import Literal, get_args

from pydantic import Field, model_validator

from pipelines.gradient_alignment.config import AlignmentConfig
from tuning.config import SearchConfig, TuneConfig

Subject = Literal["estimator", "strength", "stabilisation", "noise", "optimization"]

SUBJECTS: tuple[Subject, ...] = get_args(Subject)
"""All there is to search over."""


class AlignmentSearch(SearchConfig):
    """A search over regularizers of a classifier."""

    over: tuple[Subject, ...] = Field(SUBJECTS, min_length=1, description="what is searched over")
    drop: float = Field(
        0.05,
        gt=0,
        le=1,
        description="accuracy by which a trial may stay below plain cross-entropy after as many "
        "epochs once its grace is over, and a winner below the base; else it is out",
    )
    grace: float = Field(
        0.4, gt=0, le=1, description="share of its training that every trial gets"
    )


class AlignmentTune(TuneConfig):
    """A search around the study of gradient alignment."""

    search: AlignmentSearch = AlignmentSearch()
    base: AlignmentConfig = AlignmentConfig()

    @model_validator(mode="after")
    def _a3_is_there_and_a_penalty(self) -> "AlignmentTune":
        if self.base.reference.conditional is False:
            raise ValueError(
                "reference.conditional: found False, with which there is no A3, expected True"
            )
        if self.base.custom.name == "fool":
            raise ValueError("custom.name: found fool, expected score, anti or gnorm")
        return self
