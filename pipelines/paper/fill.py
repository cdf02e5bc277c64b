"""From a table to the quality of one imputer: ebflow, or a rival as its users call it.

Entries of numeric columns are removed, and the imputer completes the same rows several times. It
sees these rows alone. Columns of categories stay complete, as level codes. Errors are in standard
deviations of a column, or in its range for the two scores of ForestDiffusion.

Source: Generating and Imputing Tabular Data via Diffusion and Flow-based Gradient-Boosted Trees
(Jolicoeur-Martineau, Fatras, Kachman, 2024), arXiv:2309.09968, for MinMAE and AvgMAE.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, SimpleImputer

from ebflow import mixtures
from ebflow.conditioning import Conditional
from ebflow.fitting import fit
from ebflow.randomness import generator
from ebflow.tables.completion import fit_gaussian
from pipelines.data.dataset import Dataset
from pipelines.paper.config import RivalConfig
from pipelines.tracking.run import StageRun

RANDOM = {"mcar20": 0.2, "mcar40": 0.4}  # Probability that an entry is removed, whatever its value

# Probabilities of ``mnar`` for values above their column's median, and for the others.
ABOVE, BELOW = 0.35, 0.05

# Imputations by those who sample: their range covers 90 %; those of ForestDiffusion's scores.
COPIES, FEW = 19, 5

# Trees of MissForest, and rounds of scikit-learn's imputers: fewer than usual, to save time.
TREES, ROUNDS = 20, 5

LEVEL = 0.9  # Nominal coverage of the intervals

CHAINS, WARM_UP = 4, 2  # Chains of miceforest, and their rounds before the first sample
MIXTURE_ROUNDS = 3  # Mixtures that are fitted in turn, each to rows that the one before completed


def fill(config: RivalConfig, data: Path, *, run: StageRun) -> None:
    """Writes ``evaluation.json``: the scores of the training and validation rows."""
    torch.set_num_threads(config.threads)
    dataset = run.open(config, Dataset(data))
    splits = [dataset.split(name) for name in ("train", "validation")]
    x = torch.cat([split.tensor() for split in splits]).double().numpy()
    removed = chosen(config, x, ~np.array(splits[0].categories, bool))
    observed, start = np.where(removed, np.nan, x), time.process_time()
    copies = IMPUTERS[config.rival](observed, config)
    seconds = time.process_time() - start
    run.write_metrics({**scores(x, copies, removed), "time/cpu_s": seconds})


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


def scores(x: np.ndarray, copies: np.ndarray, removed: np.ndarray) -> dict[str, float]:
    """Returns the scores of imputations (K, N, D) of removed entries."""
    spread, entries = x.std(0), removed.sum()
    ranges = (np.abs(copies[:FEW] - x) / np.ptp(x, 0) * removed).sum(2)
    error = ((copies.mean(0) - x) / spread)[removed]
    return {
        "study/removed": float(removed.mean()),
        "study/crps": float((crps(copies, x) / spread)[removed].mean()),
        "study/coverage": float(covered(copies, x)[removed].mean()),
        "study/min_mae": float(ranges.min(0).sum() / entries),
        "study/avg_mae": float(ranges.mean(0).sum() / entries),
        "study/rmse": float(np.sqrt(np.square(error).mean())),
    }


def crps(draws: np.ndarray, y: np.ndarray) -> np.ndarray:
    r"""Returns the continuous ranked probability score of every element of ``y`` (\*S).

    It is :math:`E|X - y| - \tfrac12 E|X - X'|`, estimated without bias from the samples
    (K, \*S). The score of a single sample is its absolute error.

    Source: Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting, Raftery, 2007).
    """
    error, count = np.abs(draws - y).mean(0), len(draws)
    if count == 1:
        return error
    ranks = 2.0 * np.arange(count) - (count - 1)
    return error - np.tensordot(ranks, np.sort(draws, axis=0), 1) / (count * (count - 1))


def covered(draws: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns True where an element of ``y`` is in the interval of 90 % of its samples.

    The ends are the quantiles at rank p (K + 1), so 19 samples cover 90 % by their range.
    """
    ends = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    low, high = np.quantile(draws, ends, axis=0, method="weibull")
    return (low <= y) & (y <= high)


def _flow(x: np.ndarray, config: RivalConfig) -> np.ndarray:
    """Imputes by a flow that is fitted to the incomplete rows."""
    rows, limits = torch.from_numpy(x), config.model_dump(include={"steps", "seed"})
    flow = fit(rows, **limits, max_seconds=config.seconds, progress=False)
    noise = generator(config.seed, "fill", "flow")
    return torch.stack(flow.impute(rows, samples=COPIES, generator=noise)).numpy()


def _mixture(x: np.ndarray, config: RivalConfig, *, rounds: int) -> np.ndarray:
    """Samples from a mixture of Gaussians; a tenth of the rows choose their number.

    The first one is the Gaussian with the greatest likelihood of the observed values.
    """
    mean, scale = np.nanmean(x, 0), np.nanstd(x, 0)
    z, noise = torch.from_numpy((x - mean) / scale), generator(config.seed, "fill", "mixture")
    held_out, mixture = torch.rand(len(z), generator=noise) < 0.1, fit_gaussian(z)
    for number in range(rounds + 1):
        given = Conditional(mixture, z.nan_to_num()[:, None], z.isnan())
        samples = torch.where(z.isnan()[:, None], given.sample(COPIES, noise), z[:, None])
        if number < rounds:
            rows = samples[:, 0]
            limits = {"seed": config.seed, "budget": mixtures.BUDGET / rounds}
            mixture = mixtures.fit_mixture(rows[~held_out], rows[held_out], **limits)
    return samples.transpose(0, 1).numpy() * scale + mean


def _mean(x: np.ndarray, config: RivalConfig) -> np.ndarray:
    """Imputes the mean of each column."""
    return SimpleImputer().fit_transform(x)[None]


def _iterative(
    x: np.ndarray, config: RivalConfig, copies: int, create: Callable[[int], dict[str, Any]]
) -> np.ndarray:
    """Imputes by chained regressions, whose options ``create`` returns for every seed."""
    seeds = range(config.seed * copies, (config.seed + 1) * copies)
    imputers = (IterativeImputer(max_iter=ROUNDS, random_state=s, **create(s)) for s in seeds)
    return np.stack([imputer.fit_transform(x) for imputer in imputers])


def _ridge(x: np.ndarray, config: RivalConfig) -> np.ndarray:
    """Samples by chained Bayesian regressions, within the observed ranges."""
    ends = {"min_value": np.nanmin(x, 0), "max_value": np.nanmax(x, 0)}
    return _iterative(x, config, COPIES, lambda seed: {"sample_posterior": True, **ends})


def _missforest(x: np.ndarray, config: RivalConfig) -> np.ndarray:
    """Imputes by chained regressions with extremely randomized trees, once for each seed."""
    forest = partial(ExtraTreesRegressor, TREES)
    return _iterative(x, config, FEW, lambda seed: {"estimator": forest(random_state=seed)})


def _miceforest(x: np.ndarray, config: RivalConfig) -> np.ndarray:
    """Samples by chained gradient boosting with predictive mean matching.

    The samples of a chain are those of its rounds after the warm-up.
    """
    from miceforest import ImputationKernel

    frame = pd.DataFrame(x).add_prefix("x")
    kernel = ImputationKernel(frame, num_datasets=CHAINS, random_state=config.seed)
    rounds = range(WARM_UP, WARM_UP - (-COPIES // CHAINS))
    kernel.mice(rounds.stop, num_threads=config.threads)
    completed = (
        kernel.complete_data(chain, iteration=number + 1).to_numpy()
        for number in rounds
        for chain in range(CHAINS)
    )
    return np.stack([*completed][:COPIES])


IMPUTERS: dict[str, Callable[[np.ndarray, RivalConfig], np.ndarray]] = {
    "ebflow": _flow,
    "miceforest": _miceforest,
    "MissForest": _missforest,
    "BayesianRidge": _ridge,
    "mixture": partial(_mixture, rounds=MIXTURE_ROUNDS),
    "Gaussian": partial(_mixture, rounds=0),
    "mean": _mean,
}
