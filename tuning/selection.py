"""Rows that no trial sees, on which a search names its winner."""

__all__ = ["held_out"]

from typing import TypeVar

from ebflow.data.sources import open_source
from pipelines.config import Section

Configuration = TypeVar("Configuration", bound=Section)


def held_out(config: Configuration) -> Configuration:
    """Returns the configuration with as many rows for selection as for validation.

    One whose ``data`` says how many stays as it is.
    """
    data = config.data
    if data.selection is not None:
        return config
    sizes = {"validation": data.validation, "test": data.test, "rows": data.rows}
    rows = open_source(data.source, data.columns, data.label).counts(**sizes).validation
    return config.model_copy(update={"data": data.model_copy(update={"selection": rows})})
