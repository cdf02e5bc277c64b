"""The data set of a configuration, before it is prepared."""

__all__ = ["counted", "opened"]

from ebflow.data.sources import Reader, open_source
from ebflow.data.splits import Counts
from pipelines.config import DataConfig


def opened(data: DataConfig) -> Reader:
    """Opens the source of a configuration; raises BadInput if its columns make no data set."""
    return open_source(data.source, data.columns, data.label, data.split_column)


def counted(reader: Reader, data: DataConfig) -> Counts:
    """Returns the rows of each split; raises BadInput if there are too few."""
    return reader.counts(
        validation=data.validation, test=data.test, selection=data.selection, rows=data.rows
    )
