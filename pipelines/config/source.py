"""The data set of a configuration, before it is prepared."""

from pipelines.config import DataConfig, DensityConfig
from pipelines.data.reader import Reader
from pipelines.data.sources import find_source
from pipelines.data.splits import Counts


def opened(data: DataConfig) -> Reader:
    """Opens the source, of which it reads the schema; raises BadInput if it makes no data set."""
    chosen = (data.columns, data.label, data.split_column, data.missing, data.context or ())
    return find_source(data.source).reader(*chosen)


def counted(reader: Reader, data: DataConfig) -> Counts:
    """Returns the rows of each split; raises BadInput if there are too few."""
    return reader.counts(**data.model_dump(include={"validation", "test", "selection", "rows"}))


def overlap(data: DataConfig) -> float:
    """Returns test rows over training rows, for :func:`pipelines.reporting.statistics.student`.

    It is 0 where the source names the test rows, which all seeds have in common.
    """
    reader = opened(data)
    counts = counted(reader, data)
    return 0.0 if reader.named_counts.test else counts.test / counts.train


def held_out(config: DensityConfig) -> DensityConfig:
    """Returns a configuration with as many rows for selection as for validation.

    One whose ``data`` has their number, or whose source names them, stays as it is.
    """
    counts = counted(opened(config.data), config.data)
    if counts.selection:
        return config
    return config.changed(data={"selection": counts.validation})
