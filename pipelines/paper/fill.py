"""From a table to the quality of one rival's imputations of removed entries.

Entries of numeric columns are removed, and the rival completes the same rows several times.
Columns of categories stay complete, as level codes. Errors are in standard deviations of a
column, or in its range for the two scores of ForestDiffusion.

Source: Generating and Imputing Tabular Data via Diffusion and Flow-based Gradient-Boosted Trees
(Jolicoeur-Martineau, Fatras, Kachman, 2024), arXiv:2309.09968, for MinMAE and AvgMAE.
"""

import time
from pathlib import Path

import numpy as np
import torch

from ebflow.randomness import generator
from pipelines.data.dataset import Dataset
from pipelines.paper.config import RivalConfig
from pipelines.paper.imputers import IMPUTERS
from pipelines.paper.scores import covered, crps
from pipelines.tracking.run import StageRun

RANDOM = {"mcar20": 0.2, "mcar40": 0.4}
"""Probability that an entry is removed, whatever its value."""

ABOVE, BELOW = 0.35, 0.05
"""Probabilities of ``mnar`` for values above their column's median, and for the others."""

COPIES = 5
"""Imputations of the two scores of ForestDiffusion."""


def fill(config: RivalConfig, data: Path, *, run: StageRun) -> None:
    """Writes ``evaluation.json``: the scores of the training and validation rows."""
    torch.set_num_threads(config.threads)
    dataset = run.open(config, Dataset(data))
    splits = [dataset.split(name) for name in ("train", "validation")]
    x = torch.cat([split.tensor() for split in splits]).double().numpy()
    numeric = ~np.array(splits[0].categories, bool)
    removed = chosen(config, x, numeric)
    observed, start = np.where(removed, np.nan, x), time.process_time()
    draws = IMPUTERS[config.rival](observed, config, run.reporter.progress)
    seconds = time.process_time() - start
    run.write_metrics({**scores(x, draws, removed), "time/cpu_s": seconds})


def chosen(config: RivalConfig, x: np.ndarray, numeric: np.ndarray) -> np.ndarray:
    """Returns True where an entry is removed, with shape (N, D).

    A row that would lose all of its columns loses none.
    """
    share = RANDOM.get(config.pattern)
    if share is None:
        share = np.where(x > np.median(x, 0), ABOVE, BELOW)
    noise = torch.rand(x.shape, generator=generator(config.seed, "fill", config.pattern))
    removed = (noise.numpy() < share) & numeric
    return removed & ~removed.all(1, keepdims=True)


def scores(x: np.ndarray, draws: np.ndarray, removed: np.ndarray) -> dict[str, float]:
    """Returns the scores of imputations (K, N, D) of removed entries."""
    spread, copies = x.std(0), draws[:COPIES]
    ranges = (np.abs(copies - x) / np.ptp(x, 0) * removed).sum(2)
    entries = removed.sum()
    error = ((draws.mean(0) - x) / spread)[removed]
    return {
        "study/removed": float(removed.mean()),
        "study/crps": float((crps(draws, x) / spread)[removed].mean()),
        "study/coverage": float(covered(draws, x)[removed].mean()),
        "study/min_mae": float(ranges.min(0).sum() / entries),
        "study/avg_mae": float(ranges.mean(0).sum() / entries),
        "study/rmse": float(np.sqrt(np.square(error).mean())),
    }
