"""Rows that no trial sees, on which a search names its winner."""

__all__ = ["held_out"]

from typing import TypeVar

from pipelines.config import Section
from pipelines.density.source import counted, opened

Configuration = TypeVar("Configuration", bound=Section)


def held_out(config: Configuration) -> Configuration:
    """Returns the configuration with as many rows for selection as for validation.

    One whose ``data`` says how many, or whose source names them, stays as it is.
    """
    data = config.data
    counts = counted(opened(data), data)
    if counts.selection:
        return config
    rows = counts.validation
    return config.model_copy(update={"data": data.model_copy(update={"selection": rows})})
