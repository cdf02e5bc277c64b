"""From a table to the quality of one rival's density of a column given the others.

Rows, contexts included, are standardized by training rows, so that log-densities of tables
compare. A target on a grid has uniform noise of its grid step, the same for every rival, so that
all of them are densities of the same values.
"""

import math
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from ebflow.randomness import generator
from pipelines.data.dataset import Dataset
from pipelines.paper.config import RivalConfig
from pipelines.paper.predictors import PREDICTORS, Rows, Table
from pipelines.paper.scores import covered, crps
from pipelines.tracking.run import StageRun

BAND = 1.358
"""The 95 % quantile of √n times Kolmogorov's distance, for many rows."""


def predict(config: RivalConfig, data: Path, *, run: StageRun) -> None:
    """Writes ``evaluation.json``: the scores of the test rows."""
    torch.set_num_threads(config.threads)
    table = standardized(run.open(config, Dataset(data)), config.seed)
    start = time.process_time()
    log_probs, draws = PREDICTORS[config.rival](table, config, run.reporter.progress)
    seconds = time.process_time() - start
    found = scores(table.test.y, log_probs, draws, config.seed)
    run.write_metrics({**found, "time/cpu_s": seconds})


def standardized(dataset: Dataset, seed: int) -> Table:
    """Returns the splits of a data set of one column with contexts."""
    splits = [dataset.split(name) for name in ("train", "validation", "test")]
    y = [split.tensor().double().numpy() for split in splits]
    step = np.diff(np.unique(np.concatenate(y))).min()
    noise = generator(seed, "predict", "grid")
    y = [x + step * torch.rand(x.shape, generator=noise).double().numpy() for x in y]
    c = [split.context.double().numpy() for split in splits]
    targets, contexts = StandardScaler().fit(y[0]), StandardScaler().fit(c[0])
    pairs = zip(y, c, strict=True)
    return Table(*(Rows(targets.transform(a)[:, 0], contexts.transform(b)) for a, b in pairs))


def scores(y: np.ndarray, log_probs: np.ndarray, draws: np.ndarray, seed: int) -> dict[str, float]:
    """Returns the scores of log-densities (N,) and samples (K, N) at ``y`` (N,).

    The PIT of a row is the rank of ``y`` among its samples, completed by uniform noise. It is
    uniform if the samples have the distribution of ``y``.
    """
    noise = torch.rand(len(y), generator=generator(seed, "predict", "pit")).numpy()
    pit = np.sort(((draws < y).sum(0) + noise) / (len(draws) + 1))
    steps = np.arange(len(y) + 1) / len(y)
    distance = max((steps[1:] - pit).max(), (pit - steps[:-1]).max())
    return {
        "study/nll": -float(log_probs.mean()),
        "study/crps": float(crps(draws, y).mean()),
        "study/coverage": float(covered(draws, y).mean()),
        "study/pit": math.sqrt(len(y)) * distance / BAND,
    }
