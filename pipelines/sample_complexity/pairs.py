"""Densities with an exact normaliser: how far they are off in nats, for every objective."""

from functools import partial

import pyarrow as pa
import torch

from ebflow import objectives
from ebflow.complexity.flows import Pairs, endless, fit, line_divergence, pair_truth, whole
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.columns import table
from pipelines.sample_complexity.config import PairCell

OBJECTIVES = {
    "ml": objectives.ml,
    "ism": objectives.exact_sm,
    "dsm0.3": partial(objectives.dsm, sigma=0.3, antithetic=True),
    "dsm1": partial(objectives.dsm, sigma=1.0, antithetic=True),
}
"""By name."""

NOISES = {"dsm0.3": 0.3, "dsm1": 1.0}
"""The σ of the law that an objective learns; none: the law itself."""

ENDLESS = 1024
"""Samples a step where each is seen once."""


def pairs(cell: PairCell) -> pa.Table:
    """Returns the divergences of two Gaussians fitted to samples of such a law."""
    parts = [_pair(cell, m) for m in cell.sizes]
    return pa.concat_tables(parts, promote_options="default")


def _pair(cell: PairCell, m: int | None) -> pa.Table:
    law, sigma = pair_truth(cell.a, cell.w), NOISES.get(cell.objective, 0.0)
    noise = derive(cell.seed, "pairs", f"{cell.a:g}", str(m), cell.first)
    batches = (
        whole(law.sample(cell.count * m, generator=noise).view(cell.count, m, 1))
        if m
        else endless(law, cell.count, ENDLESS, generator=noise)
    )
    found = Pairs((cell.a, -cell.a), cell.count)
    fit(found, batches, OBJECTIVES[cell.objective], generator=noise, steps=cell.steps, lr=0.05)
    smooth = law.smoothed(sigma)
    return table(
        cell.count, panel="pairs", learner=cell.objective, a=cell.a, size=1, m=m,
        seed=torch.arange(cell.first, cell.first + cell.count),
        kl=line_divergence(law, found, cell.count),
        kl_smoothed=line_divergence(smooth, found, cell.count),
        kl_floor=float(line_divergence(law, smooth)), theta=found.logit,
    )  # fmt: skip
