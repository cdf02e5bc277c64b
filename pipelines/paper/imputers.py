"""Imputations of a table by ebflow and by its rivals, each as its users call it.

An imputer maps rows (N, D) with NaN to completed copies (K, N, D). It sees these rows alone.
"""

from collections.abc import Callable
from functools import partial
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
from pipelines.paper.config import RivalConfig

COPIES = 19
"""Imputations by those who sample: their range covers 90 %."""

SEEDS = 5
"""Imputations by MissForest, which differ by the seeds of its trees alone."""

ROUNDS, MICE_ROUNDS = 10, 5
"""Rounds of scikit-learn's iterative imputer and of miceforest, their defaults."""

MIXTURE_ROUNDS = 3
"""Mixtures that are fitted in turn, each to rows that the one before completed."""

HELD_OUT = 0.1
"""Share of the rows by which a mixture's number of Gaussians is chosen."""

Report = Callable[[float, str], None]
Impute = Callable[[np.ndarray, RivalConfig, Report], np.ndarray]


def _flow(x: np.ndarray, config: RivalConfig, report: Report) -> np.ndarray:
    """Imputes by a flow that is fitted to the incomplete rows."""
    rows = torch.from_numpy(x)
    flow = fit(
        rows,
        **config.model_dump(include={"steps", "seed"}),
        max_seconds=config.seconds,
        progress=False,
        callback=lambda event: report(event.share / 2, "fits the flow"),
    )
    noise = generator(config.seed, "fill", "flow")
    return torch.stack(flow.impute(rows, draws=COPIES, generator=noise)).numpy()


def _mixture(x: np.ndarray, config: RivalConfig, report: Report, *, rounds: int) -> np.ndarray:
    """Samples from a mixture of Gaussians; held-out rows choose their number.

    The first one is the Gaussian with the greatest likelihood of the observed values.
    """
    mean, scale = np.nanmean(x, 0), np.nanstd(x, 0)
    z, noise = torch.from_numpy((x - mean) / scale), generator(config.seed, "fill", "mixture")
    held_out, mixture = torch.rand(len(z), generator=noise) < HELD_OUT, fit_gaussian(z)
    for number in range(rounds + 1):
        report(number / (rounds + 1), "fits a mixture")
        given = Conditional(mixture, z.nan_to_num()[:, None], z.isnan())
        samples = torch.where(z.isnan()[:, None], given.sample(COPIES, noise)[:, 0], z[:, None])
        if number < rounds:
            rows = samples[:, 0]
            limits = {"seed": config.seed, "budget": mixtures.BUDGET / rounds}
            mixture = mixtures.search(rows[~held_out], rows[held_out], **limits).mixture
    return samples.transpose(0, 1).numpy() * scale + mean


def _mean(x: np.ndarray, config: RivalConfig, report: Report) -> np.ndarray:
    """Imputes the mean of each column."""
    return SimpleImputer().fit_transform(x)[None]


def _iterative(x: np.ndarray, seed: int, estimator: Any = None, **options: Any) -> np.ndarray:  # noqa: ANN401
    """Imputes by chained regressions; None: Bayesian ones."""
    options |= {"max_iter": ROUNDS, "random_state": seed}
    return IterativeImputer(estimator, **options).fit_transform(x)


def _ridge(x: np.ndarray, config: RivalConfig, report: Report) -> np.ndarray:
    """Samples by chained Bayesian regressions, within the observed ranges."""
    ends = {"min_value": np.nanmin(x, 0), "max_value": np.nanmax(x, 0)}
    seeds = range(config.seed * COPIES, (config.seed + 1) * COPIES)
    return np.stack([_iterative(x, seed, sample_posterior=True, **ends) for seed in seeds])


def _missforest(x: np.ndarray, config: RivalConfig, report: Report) -> np.ndarray:
    """Imputes by chained regressions with extremely randomized trees, once for each seed."""
    seeds = range(config.seed * SEEDS, (config.seed + 1) * SEEDS)
    trees = (ExtraTreesRegressor(random_state=seed) for seed in seeds)
    return np.stack([_iterative(x, seed, one) for seed, one in zip(seeds, trees, strict=True)])


def _miceforest(x: np.ndarray, config: RivalConfig, report: Report) -> np.ndarray:
    """Samples by chained gradient boosting with predictive mean matching."""
    from miceforest import ImputationKernel

    frame = pd.DataFrame(x, columns=[f"x{k}" for k in range(x.shape[1])])
    kernel = ImputationKernel(frame, num_datasets=COPIES, random_state=config.seed)
    kernel.mice(MICE_ROUNDS, num_threads=config.threads)
    return np.stack([kernel.complete_data(copy).to_numpy() for copy in range(COPIES)])


IMPUTERS: dict[str, Impute] = {
    "ebflow": _flow,
    "miceforest": _miceforest,
    "MissForest": _missforest,
    "BayesianRidge": _ridge,
    "mixture": partial(_mixture, rounds=MIXTURE_ROUNDS),
    "Gaussian": partial(_mixture, rounds=0),
    "mean": _mean,
}
