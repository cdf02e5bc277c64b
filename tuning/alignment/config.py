"""What a search around the study of gradient alignment can be told."""

from typing import Literal, get_args

import tyro
from pydantic import Field, model_validator

from pipelines.config import UNKEYED
from pipelines.gradient_alignment.config import AlignmentConfig
from tuning.config import SearchConfig, TuneConfig

Subject = Literal["estimator", "strength", "stabilisation", "noise", "optimisation"]

SUBJECTS: tuple[Subject, ...] = get_args(Subject)
"""All there is to search over."""


class AlignmentSearch(SearchConfig):
    """A search over regularisers of a classifier."""

    over: tuple[Subject, ...] = Field(SUBJECTS, min_length=1, description="what is searched over")
    goals: tuple[Literal["A3", "accuracy"], ...] = Field(
        ("A3", "accuracy"),
        min_length=1,
        description="what is to be large: A3, or A3 and accuracy, for which trials that no other "
        "beats in both are found, and none is stopped early but by --drop and a collapse; of anti "
        "A3 is to be small",
    )
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
    seed: tyro.conf.Suppress[int] = Field(
        0, ge=0, description="seed of the trials and of what is proposed: that of the study"
    )
    seeds: tyro.conf.Suppress[int] = Field(
        3, ge=1, description="seeds of the trainings behind the search: as many as the study has"
    )


class AlignmentTune(TuneConfig):
    """A search around the study of gradient alignment."""

    name: str = Field("alignment", description="name of the run", json_schema_extra=UNKEYED)
    search: AlignmentSearch = AlignmentSearch()
    base: AlignmentConfig = AlignmentConfig()

    @model_validator(mode="after")
    def _classes_have_references(self) -> "AlignmentTune":
        if self.base.reference.conditional is False:
            raise ValueError(
                "reference.conditional: found False, with which there is no A3, expected True"
            )
        return self

    @model_validator(mode="after")
    def _there_is_a_penalty(self) -> "AlignmentTune":
        if self.base.custom.name == "fool":
            raise ValueError("custom.name: found fool, expected score, anti or gnorm")
        if self.base.custom.name != "none" and not self.base.custom.weight:
            raise ValueError("custom.weight: found 0, from which none is searched, expected more")
        return self
