"""Samples, fits and measures one cell."""

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
from torch import Tensor

from pipelines.sample_complexity import config
from pipelines.sample_complexity.data_like import denoisers
from pipelines.sample_complexity.far_mode import finite, networks
from pipelines.sample_complexity.flows import flows
from pipelines.sample_complexity.images import images
from pipelines.sample_complexity.learned import learned
from pipelines.sample_complexity.minimizer import minimizers
from pipelines.sample_complexity.random_classes import random_classes
from pipelines.sample_complexity.rows import FILE
from pipelines.sample_complexity.sampling import spoiled, steps
from pipelines.sample_complexity.two_points import two_points
from pipelines.tracking.run import StageRun

# Functions from a cell to columns of rows, which are tensors, sequences or constants.
MEASURES: dict[type[config.Cell], Callable[[Any], Iterator[dict[str, Any]]]] = {
    config.FiniteCell: finite,
    config.TwoPointCell: two_points,
    config.ClassCell: random_classes,
    config.StepCell: minimizers,
    config.NetworkCell: networks,
    config.DenoiserCell: denoisers,
    config.SpoiledCell: spoiled,
    config.StepsCell: steps,
    config.LearnedCell: learned,
    config.FlowCell: flows,
    config.ImageCell: images,
}


def learn(cell: config.Cell, *, run: StageRun) -> None:
    """Writes ``rows.parquet``."""
    run.log_params({"kind": type(cell).__name__, **cell.model_dump()})
    rows = measured(cell)
    rows.to_parquet(run.output / FILE)
    run.log_metrics({"study/rows": len(rows)})


def measured(cell: config.Cell) -> pd.DataFrame:
    """Returns the rows of a cell."""
    parts = [
        {name: _column(values) for name, values in columns.items()}
        for columns in MEASURES[type(cell)](cell)
    ]
    return pd.concat(map(pd.DataFrame, parts), ignore_index=True)


def _column(values: Any) -> Any:  # noqa: ANN401
    """Returns values as pandas stores them, real numbers in float64."""
    if not isinstance(values, Tensor):
        return values
    return values.double().numpy() if values.is_floating_point() else values.numpy()
