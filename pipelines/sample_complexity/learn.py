"""Samples, fits and measures one cell."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from pipelines.sample_complexity import config
from pipelines.sample_complexity.data_like import denoisers
from pipelines.sample_complexity.far_mode import finite, networks, samplers
from pipelines.sample_complexity.rows import FILE
from pipelines.tracking.run import StageRun

MEASURES: dict[type[config.Cell], Callable[[Any], pd.DataFrame]] = {
    config.FiniteCell: finite,
    config.NetworkCell: networks,
    config.SamplerCell: samplers,
    config.DenoiserCell: denoisers,
}
"""Functions from a cell to its rows."""


def learn(cell: config.Cell, *, run: StageRun) -> None:
    """Writes ``rows.parquet``."""
    run.log_params({"kind": type(cell).__name__, **cell.model_dump()})
    rows = MEASURES[type(cell)](cell)
    rows.to_parquet(run.output / FILE)
    run.log_metrics({"study/rows": len(rows)})
