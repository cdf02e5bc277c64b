"""Imputations of a table by ebflow and by its rivals, each as its users call it.

An imputer maps rows (N, D) with NaN to completed copies (K, N, D). It sees these rows alone.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, SimpleImputer
from torch import Tensor

from ebflow import mixtures
from ebflow.conditioning import Conditional
from ebflow.fitting import fit
from ebflow.randomness import generator
from ebflow.tables.completion import Completion, fit_gaussian
from pipelines.paper.config import FillConfig

COPIES = 19
"""Imputations by those who sample: their range covers 90 %."""

SEEDS = 5
"""Imputations by MissForest, which differ by the seeds of its trees alone."""

ROUNDS = 10
"""Rounds of the iterative imputers, scikit-learn's default."""

MICE_ROUNDS = 5
"""Rounds of miceforest in its documentation."""

MIXTURE_ROUNDS = 3
"""Mixtures that are fitted in turn, each to rows that the one before completed."""

HELD_OUT = 0.1
"""Share of the rows by which a mixture's number of Gaussians is chosen."""

Report = Callable[[float, str], None]
Impute = Callable[[np.ndarray, FillConfig, Report], np.ndarray]


def _flow(x: np.ndarray, config: FillConfig, report: Report) -> np.ndarray:
    """Imputes by a flow that is fitted to the incomplete rows."""
    rows = torch.from_numpy(x)
    flow = fit(
        rows,
        steps=config.steps,
        max_seconds=config.seconds,
        seed=config.seed,
        progress=False,
        callback=lambda event: report(event.share / 2, "fits the flow"),
    )
    noise = generator(config.seed, "fill", "flow")
    copies = flow.impute(
        rows,
        draws=COPIES,
        generator=noise,
        progress=lambda share: report((1 + share) / 2, "imputes"),
    )
    return torch.stack(copies).numpy()


def _standardized(x: np.ndarray) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Returns rows in units of the observed values' standard deviations, with mean and scale."""
    mean, scale = np.nanmean(x, 0), np.nanstd(x, 0)
    return torch.from_numpy((x - mean) / scale), mean, scale


def _gaussian(x: np.ndarray, config: FillConfig, report: Report) -> np.ndarray:
    """Samples from the Gaussian with the greatest likelihood of the observed values."""
    z, mean, scale = _standardized(x)
    rows = Completion(fit_gaussian(z), z.repeat(COPIES, 1, 1).flatten(0, 1))
    samples = rows.sample(generator(config.seed, "fill", "gaussian"))
    return samples.view(COPIES, *x.shape).numpy() * scale + mean


def _mixture(x: np.ndarray, config: FillConfig, report: Report) -> np.ndarray:
    """Samples from a mixture of Gaussians; held-out rows choose their number."""
    z, mean, scale = _standardized(x)
    noise = generator(config.seed, "fill", "mixture")
    rows = Completion(fit_gaussian(z), z).sample(noise)
    held_out = torch.rand(len(z), generator=noise) < HELD_OUT
    budget = mixtures.BUDGET / MIXTURE_ROUNDS
    for number in range(MIXTURE_ROUNDS):
        report(number / MIXTURE_ROUNDS, "fits a mixture")
        found = mixtures.search(rows[~held_out], rows[held_out], seed=config.seed, budget=budget)
        given = Conditional(found.mixture, z.nan_to_num()[:, None], z.isnan())
        samples = torch.where(z.isnan()[:, None], given.sample(COPIES, noise)[:, 0], z[:, None])
        rows = samples[:, 0]
    return samples.transpose(0, 1).numpy() * scale + mean


def _mean(x: np.ndarray, config: FillConfig, report: Report) -> np.ndarray:
    """Imputes the mean of each column."""
    return SimpleImputer().fit_transform(x)[None]


def _iterative(
    x: np.ndarray,
    config: FillConfig,
    report: Report,
    *,
    estimator: Callable[[int], Any],
    copies: int,
    **options: Any,  # noqa: ANN401
) -> np.ndarray:
    """Imputes by scikit-learn's chained regressions, once for each seed."""

    def completed() -> Iterator[np.ndarray]:
        for copy in range(copies):
            report(copy / copies, "chained regressions")
            seed = config.seed * copies + copy
            yield IterativeImputer(
                estimator(seed), max_iter=ROUNDS, random_state=seed, **options
            ).fit_transform(x)

    return np.stack([*completed()])


def _bayesian_ridge(x: np.ndarray, config: FillConfig, report: Report) -> np.ndarray:
    """Samples by chained Bayesian regressions, within the observed ranges."""
    ends = {"min_value": np.nanmin(x, 0), "max_value": np.nanmax(x, 0)}
    options = {"estimator": lambda seed: None, "copies": COPIES, "sample_posterior": True}
    return _iterative(x, config, report, **options, **ends)


def _trees(seed: int) -> ExtraTreesRegressor:
    return ExtraTreesRegressor(random_state=seed)


def _miceforest(x: np.ndarray, config: FillConfig, report: Report) -> np.ndarray:
    """Samples by chained gradient boosting with predictive mean matching."""
    from miceforest import ImputationKernel

    frame = pd.DataFrame(x, columns=[f"x{k}" for k in range(x.shape[1])])
    kernel = ImputationKernel(frame, num_datasets=COPIES, random_state=config.seed)
    for number in range(MICE_ROUNDS):
        report(number / MICE_ROUNDS, "chained boosting")
        kernel.mice(1, num_threads=config.threads)
    return np.stack([kernel.complete_data(copy).to_numpy() for copy in range(COPIES)])


IMPUTERS: dict[str, Impute] = {
    "ebflow": _flow,
    "miceforest": _miceforest,
    "MissForest": partial(_iterative, estimator=_trees, copies=SEEDS),
    "BayesianRidge": _bayesian_ridge,
    "mixture": _mixture,
    "Gaussian": _gaussian,
    "mean": _mean,
}
