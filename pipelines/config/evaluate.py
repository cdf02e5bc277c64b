"""The test of a trained flow."""

__all__ = ["EvaluateConfig"]

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
