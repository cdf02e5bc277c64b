"""One cell of the study of sample complexity: from a draw to the errors of what was learnt."""

import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch

from pipelines.sample_complexity import config
from pipelines.sample_complexity.denoisers import denoisers
from pipelines.sample_complexity.finite_classes import classes, finite, steps, two_point
from pipelines.sample_complexity.networks import networks
from pipelines.sample_complexity.rows import FILE
from pipelines.sample_complexity.samplers import samplers
from pipelines.sample_complexity.two_gaussians import pairs, weights
from pipelines.tracking.run import StageRun
from pipelines.training.stage_reports import write_metrics

BODIES: dict[type[config.CellConfig], Callable[[Any], pd.DataFrame]] = {
    config.TwoPointCell: two_point,
    config.FiniteCell: finite,
    config.ClassCell: classes,
    config.StepCell: steps,
    config.NetworkCell: networks,
    config.SamplerCell: samplers,
    config.DenoiserCell: denoisers,
    config.PairCell: pairs,
    config.WeightCell: weights,
}
"""What makes a cell's rows, by the type of its configuration."""


def learn(cell: config.CellConfig, *, run: StageRun) -> None:
    """Writes ``rows.parquet``, and into ``evaluation.json`` its processor time in s."""
    torch.set_num_threads(1)
    run.log_params({"kind": type(cell).__name__, **cell.model_dump()})
    began = time.process_time()
    rows = BODIES[type(cell)](cell)
    rows.to_parquet(run.output / FILE)
    spent = time.process_time() - began
    write_metrics({"study/rows": len(rows), "study/cpu_s": spent}, run)
