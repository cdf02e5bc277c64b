"""Two Gaussians on the line: divergences of densities, and the spread of a weight's estimates."""

from functools import partial

import pandas as pd
import torch

from ebflow import objectives
from ebflow.complexity.efficiency import estimates, pair_truth
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.config import PairCell, WeightCell
from pipelines.sample_complexity.pair_fits import Pairs, fit, line_divergence
from pipelines.sample_complexity.rows import frame

OBJECTIVES = {
    "ml": objectives.ml,
    "ism": objectives.exact_sm,
    "dsm0.3": partial(objectives.dsm, sigma=0.3, antithetic=True),
    "dsm1": partial(objectives.dsm, sigma=1.0, antithetic=True),
}
"""By name."""

NOISES = {"dsm0.3": 0.3, "dsm1": 1.0}
"""The σ of the law that an objective learns; none: the law itself."""

WEIGHT = 0.3
"""Of the first of both Gaussians."""

ENDLESS = 1024
"""Samples a step where each is seen once."""


def pairs(cell: PairCell) -> pd.DataFrame:
    """Returns the divergences of two Gaussians fitted to samples of such a law."""
    return pd.concat([_pair(cell, m) for m in cell.sizes], ignore_index=True)


def _pair(cell: PairCell, m: int | None) -> pd.DataFrame:
    law, sigma = pair_truth(cell.a, WEIGHT), NOISES.get(cell.objective, 0.0)
    noise = derive(cell.seed, "pairs", f"{cell.a:g}", str(m), cell.first)

    def sample(rows: int) -> torch.Tensor:
        return law.sample(cell.count * rows, generator=noise).view(cell.count, rows, 1)

    whole = sample(m) if m else None
    batches = (lambda: whole) if m else partial(sample, ENDLESS)
    found = Pairs((cell.a, -cell.a), cell.count)
    fit(found, batches, OBJECTIVES[cell.objective], generator=noise, steps=cell.steps)
    return frame({
        "panel": "pairs", "learner": cell.objective, "a": cell.a, "m": m,
        "seed": torch.arange(cell.first, cell.first + cell.count),
        "kl": line_divergence(law, found, cell.count),
        "kl_floor": float(line_divergence(law, law.smoothed(sigma))),
    })  # fmt: skip


def weights(cell: WeightCell) -> pd.DataFrame:
    """Returns θ̂ of every training set, of equal modes at ±a: their spread is an efficiency."""
    noise = derive(cell.seed, "weights", f"{cell.a:g}", cell.first)
    x = pair_truth(cell.a, 0.5).sample(cell.count * cell.samples, generator=noise)
    sigma = None if cell.estimator == "ml" else cell.sigma
    learner = f"dsm{cell.sigma:g}" if cell.estimator == "dsm" else cell.estimator
    return frame({
        "panel": "weights", "learner": learner, "a": cell.a, "m": cell.samples,
        "seed": torch.arange(cell.first, cell.first + cell.count),
        "theta": estimates(x.view(cell.count, cell.samples), cell.a, sigma),
    })  # fmt: skip
