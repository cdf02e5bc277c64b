"""The data set of a configuration, before it is prepared."""

__all__ = ["counted", "examined", "opened"]

from ebflow.data.prepare import examine
from ebflow.data.sources import Reader, open_source
from ebflow.data.splits import Counts
from pipelines.config import DataConfig


def opened(data: DataConfig) -> Reader:
    """Opens the source of a configuration; raises BadInput if its columns make no data set."""
    return open_source(data.source, data.columns, data.label, data.split_column, data.missing)


def counted(reader: Reader, data: DataConfig) -> Counts:
    """Returns the rows of each split; raises BadInput if there are too few."""
    return reader.counts(
        validation=data.validation, test=data.test, selection=data.selection, rows=data.rows
    )


def examined(data: DataConfig) -> None:
    """Reads all rows; raises BadInput at the first thing wrong with them, as their preparation."""
    reader = opened(data)
    examine(reader, counted(reader, data), None if data.held_out == "last" else data.seed)
