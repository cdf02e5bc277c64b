"""Estimates of a mode's weight, whose spread is the efficiency of an objective."""

import pyarrow as pa
import torch

from ebflow.complexity.efficiency import estimates, samples
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.columns import table
from pipelines.sample_complexity.config import WeightCell


def weights(cell: WeightCell) -> pa.Table:
    """Returns θ̂ of every training set, of equal modes at ±a."""
    noise = derive(cell.seed, "weights", f"{cell.a:g}", cell.first)
    x = samples(cell.a, 0.5, (cell.count, cell.samples), generator=noise)
    return table(
        cell.count, panel="weights", learner=_learner(cell), a=cell.a, size=1, m=cell.samples,
        seed=torch.arange(cell.first, cell.first + cell.count),
        theta=estimates(cell.estimator, x, cell.a, sigma=cell.sigma),
    )  # fmt: skip


def _learner(cell: WeightCell) -> str:
    return f"dsm{cell.sigma:g}" if cell.estimator == "dsm" else cell.estimator
