"""From a table to the quality of one density of a column given the others: ebflow, or a rival.

Rows, contexts included, are standardized by training rows, so that log-densities of tables
compare. A target on a grid has uniform noise of its grid step, the same for every rival. So all of
them are densities of the same values.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy
import torch
import zuko
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ebflow.fitting import fit
from ebflow.randomness import generator
from pipelines.data.dataset import Dataset
from pipelines.paper import fits
from pipelines.paper.config import RivalConfig
from pipelines.paper.fill import covered, crps
from pipelines.tracking.run import StageRun

BAND = 1.358  # The 95 % quantile of √n times Kolmogorov's distance, for many rows
DRAWS = 199  # Samples of a row

# Levels of the quantiles of gradient boosting.
LEVELS = np.array([0.005, 0.01, 0.025, *np.arange(0.05, 0.96, 0.05), 0.975, 0.99, 0.995])

# Smallest distance of two quantiles per unit of probability, in standard deviations.
NARROWEST = 0.01

# A mixture density network: eight Gaussians by a network of the context (Bishop, 1994).
NETWORK = partial(zuko.flows.GMM, components=8, hidden_features=(64, 64), epsilon=1e-3)

# Most trees of NGBoost, its default, and trees without improvement until it stops.
TREES, PATIENCE = 500, 50


class Rows(NamedTuple):
    """Targets (N,) and contexts (N, C) of a split."""

    y: np.ndarray
    c: np.ndarray

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Returns targets (N, 1) and contexts in float32."""
        return torch.from_numpy(self.y).float()[:, None], torch.from_numpy(self.c).float()


class Table(NamedTuple):
    """The splits of a table."""

    train: Rows
    validation: Rows
    test: Rows


Prediction = tuple[np.ndarray, np.ndarray]
Predict = Callable[[Table, RivalConfig], Prediction]


def predict(config: RivalConfig, data: Path, *, run: StageRun) -> None:
    """Writes ``evaluation.json``: the scores of the test rows."""
    torch.set_num_threads(config.threads)
    table = standardized(run.open(config, Dataset(data)), config.seed)
    start = time.process_time()
    log_probs, draws = PREDICTORS[config.rival](table, config)
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
    pit = ((draws < y).sum(0) + noise) / (len(draws) + 1)
    distance = float(scipy.stats.kstest(pit, "uniform").statistic)
    return {
        "study/nll": -float(log_probs.mean()),
        "study/crps": float(crps(draws, y).mean()),
        "study/coverage": float(covered(draws, y).mean()),
        "study/pit": math.sqrt(len(y)) * distance / BAND,
    }


def _flow(table: Table, config: RivalConfig) -> Prediction:
    """Predicts by ebflow's default conditional flow."""
    (y, c), held_out, (test, given) = (rows.tensors() for rows in table)
    limits = config.model_dump(include={"steps", "seed"})
    flow = fit(y, c, validation=held_out, max_seconds=config.seconds, progress=False, **limits)
    samples = flow(given).sample_tensor(DRAWS, generator=generator(config.seed, "predict"))
    return flow.log_prob(test, context=given).numpy(), samples[..., 0].numpy()


def _boosting(table: Table, config: RivalConfig) -> Prediction:
    """Predicts by quantiles, between which the density is constant."""
    y, c = (np.concatenate(parts) for parts in zip(*table[:2], strict=True))
    quantiles = []
    for level in LEVELS:
        options = {"quantile": level, "early_stopping": True, "random_state": config.seed}
        trees = HistGradientBoostingRegressor(loss="quantile", **options)
        quantiles.append(trees.fit(c, y).predict(table.test.c))
    first, *_ = quantiles = np.sort(np.stack(quantiles), axis=0)
    widths = np.maximum(np.diff(quantiles, axis=0), NARROWEST * np.diff(LEVELS)[:, None])
    ends = np.concatenate([first[None], first + widths.cumsum(0)])
    u = torch.rand(DRAWS, len(first), generator=generator(config.seed, "predict"))
    return from_quantiles(ends, table.test.y, u.double().numpy())


def from_quantiles(ends: np.ndarray, y: np.ndarray, u: np.ndarray) -> Prediction:
    """Returns log-densities at ``y`` (N,) and the values at levels ``u`` (K, N).

    The density is constant between quantiles. Beyond the outermost ones it falls exponentially,
    from the density of the interval beside.

    Arguments:
        ends: The quantiles at ``LEVELS``, strictly ascending, with shape (L, N).
    """
    density = np.diff(LEVELS)[:, None] / np.diff(ends, axis=0)
    low, high = LEVELS[0] / density[0], (1 - LEVELS[-1]) / density[-1]
    place = ((y >= ends).sum(0) - 1).clip(0, len(density) - 1)
    beyond = np.maximum(ends[0] - y, 0) / low + np.maximum(y - ends[-1], 0) / high
    values = np.stack([np.interp(*k, LEVELS, q) for *k, q in zip(u.T, ends.T, strict=True)], 1)
    values += low * np.log(np.clip(u / LEVELS[0], 1e-12, 1))
    values -= high * np.log(np.clip((1 - u) / (1 - LEVELS[-1]), 1e-12, 1))
    return np.log(density[place, np.arange(len(y))]) - beyond, values


def _ngboost(table: Table, config: RivalConfig) -> Prediction:
    """Predicts by natural gradient boosting of a Gaussian, stopped by validation rows."""
    from ngboost import NGBRegressor

    model = NGBRegressor(n_estimators=TREES, verbose=False, random_state=config.seed)
    held_out = {"X_val": table.validation.c, "Y_val": table.validation.y}
    model.fit(table.train.c, table.train.y, **held_out, early_stopping_rounds=PATIENCE)
    normal = model.pred_dist(table.test.c)
    size = (DRAWS, len(table.test.y))
    return normal.logpdf(table.test.y), normal.dist.rvs(size, random_state=config.seed)


def _network(
    table: Table, config: RivalConfig, *, create: Callable[..., zuko.lazy.LazyDistribution]
) -> Prediction:
    """Predicts by a network of zuko."""
    train, held_out, (test, given) = (rows.tensors() for rows in table)
    network = fits.created(partial(create, 1, given.shape[1]), config)
    noise = generator(config.seed, "predict", config.rival)

    def nll(y: Tensor, c: Tensor) -> Tensor:
        return -network(c).log_prob(y).mean()

    def loss() -> Tensor:
        size = min(fits.BATCH, len(train[0]))
        rows = torch.randint(len(train[0]), (size,), generator=noise)
        return nll(*(part[rows] for part in train))

    fits.train(network, loss, lambda: float(nll(*held_out)), config)
    with torch.no_grad(), torch.random.fork_rng(devices=()):
        torch.manual_seed(noise.initial_seed())  # zuko samples from PyTorch's global state
        density = network(given)
        samples = density.sample((DRAWS,))[..., 0]
        return density.log_prob(test).double().numpy(), samples.double().numpy()


PREDICTORS: dict[str, Predict] = {
    "ebflow": _flow,
    "boosted quantiles": _boosting,
    "NGBoost": _ngboost,
    "mixture network": partial(_network, create=NETWORK),
    "zuko NSF": partial(_network, create=partial(zuko.flows.NSF, **fits.SIZES)),
}
