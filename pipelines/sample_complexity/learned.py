"""Sampling by scores that networks learned, of training sets as they come.

Columns of rows beside those in ``rows.py``: errors over all levels of the sampler, the distances
of ``ebflow.complexity.distances``, and ``bound``: δ plus the root of half the divergence of paths
whose scores differ at each level by the quantile error at δ/N. Rows of the learner ``exact score``
have no ``m``.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ebflow.bases import GaussianMixture
from ebflow.complexity import errors
from ebflow.complexity.denoisers import RectifiedDenoisers
from ebflow.complexity.distances import distances
from ebflow.complexity.instances import HALF, far_mode, stratified, worst_eta
from ebflow.complexity.samplers import ladder, reverse_sde
from ebflow.complexity.spoiled import path_divergence
from ebflow.randomness import generator as derive
from pipelines.reporting.claims import Measured, Question
from pipelines.reporting.statistics import below, student
from pipelines.reporting.style import BASELINE, FLOW, panels
from pipelines.sample_complexity.config import EPSILON, LearnedCell
from pipelines.sample_complexity.rows import where
from pipelines.sample_complexity.sampling import MOST, WIDEST
from pipelines.sample_complexity.training import TrainingSets, train

LEARNED, EXACT = "learned score", "exact score"  # Names in the column ``learner``

DELTA = 0.1  # The mass δ of the quantile error over all levels
TEST = 1000  # Test points of each component at every level

RISE = 0.1  # Samples without the far mode may be this much further from the truth


def learned(cell: LearnedCell) -> Iterator[dict[str, Any]]:
    """Yields errors and distances of samples of every network, and those of the exact score."""
    eta = worst_eta(cell.ratio, EPSILON)
    truth = far_mode(cell.ratio, eta, dtype=torch.float32)
    levels = ladder(WIDEST * cell.ratio * HALF, HALF, cell.levels)
    sets = _training_sets(cell, truth)
    noise = derive(cell.seed, "learned", "train", cell.first)
    ensemble = RectifiedDenoisers(
        len(sets.owner), 1, radius=cell.ratio * HALF, width=cell.width, generator=noise
    )
    for _ in train(
        ensemble, sets, generator=noise, lengths=(cell.steps,), least=HALF, highest=levels[0],
        rows=cell.batch,
    ):  # fmt: skip
        pass
    constants = {"panel": "learned", "ratio": cell.ratio, "size": 1, "eta": eta}
    by_level = [_errors_at(cell, truth, ensemble, sigma) for sigma in levels]
    worst = torch.stack([one[f"sigma_d_{DELTA / len(levels):g}"] for one in by_level], 1)
    bounds = [
        DELTA + math.sqrt(path_divergence(levels, row.tolist()) / 2) for row in worst[:, :-1]
    ]
    shape = (ensemble.count, cell.samples, 1)
    x = reverse_sde(
        ensemble.score, shape, truth.means, levels=levels,
        generator=derive(cell.seed, "learned", "samples", cell.first),
    )  # fmt: skip
    yield {
        "learner": LEARNED, **sets.columns, **by_level[-1], **errors.over_levels(by_level, DELTA),
        "bound": bounds, **_distances(cell, truth, x), **constants,
    }  # fmt: skip
    exact = reverse_sde(
        lambda x, sigma: truth.smoothed(sigma).score(x), shape[1:], truth.means, levels=levels,
        generator=derive(cell.seed, "learned", "exact", cell.first),
    )  # fmt: skip
    yield {"learner": EXACT, "seed": [cell.first], **_distances(cell, truth, exact[None]),
           **constants}  # fmt: skip


def _training_sets(cell: LearnedCell, truth: GaussianMixture) -> TrainingSets:
    def sample(index: int) -> tuple[Tensor, Tensor]:
        noise = derive(cell.seed, "learned", "set", index)
        clean, component = truth.sample_with_components(max(cell.sizes), generator=noise)
        return clean, component > 0

    return TrainingSets.sampled(sample, cell.sets, cell.sizes)


def _errors_at(
    cell: LearnedCell, truth: GaussianMixture, ensemble: RectifiedDenoisers, sigma: float
) -> dict[str, Tensor]:
    noise = derive(cell.seed, "test", f"{sigma:g}")
    test = stratified(truth, TEST, sigma=sigma, generator=noise)
    gaps = ensemble.score(test.noisy, sigma) - truth.smoothed(sigma).score(test.noisy)
    deltas = (DELTA, DELTA / (cell.levels + 1))
    return errors.measures(sigma * gaps.norm(dim=-1), test, deltas)


def _distances(cell: LearnedCell, truth: GaussianMixture, x: Tensor) -> dict[str, list[float]]:
    """Returns the distances of samples with shape (E, n, 1), by name."""
    smooth = truth.smoothed(HALF).double()
    noise = derive(cell.seed, "learned", "slices")
    found = [distances(rows.double(), smooth, generator=noise)._asdict() for rows in x]
    return {name: [one[name] for one in found] for name in found[0]}


def about_learned(rows: pd.DataFrame) -> Iterator[Measured]:
    """Yields the claims about samples of learned scores."""
    networks = where(rows, learner=LEARNED)
    rises = networks["tv"] - where(rows, learner=EXACT)["tv"].mean()
    bounded = networks[networks["bound"] < 1]  # no total variation exceeds 1
    of_bound = (rises / networks["bound"])[bounded.index].groupby(bounded["seed"]).mean()
    yield Question(
        "Samples of learned scores are as near to the truth as their quantile errors bound",
        "rise of the total variation over the bound", below(MOST), figure="learned", item="G5",
        note="from that of the exact score; the bound has the error at δ/N of every level, δ = "
        f"{DELTA:g}; mean over training sets, of networks whose bound is below 1",
    ), student(of_bound) if len(of_bound) > 1 else None  # fmt: skip
    m = _half_without(networks)
    missed = where(networks, m=m, n_far=0)
    missed = missed[missed["sigma_l2"] > EPSILON]
    yield Question(
        "Learned scores that miss the far mode sample well, although their mean square error "
        f"exceeds ε: the total variation rises by less than {RISE:g}",
        "rise of the total variation", below(RISE), figure="learned", item="G5",
        note=f"training sets without a far sample, at m = {m:,}",
    ), student(rises[missed.index]) if len(missed) > 1 else None  # fmt: skip


def _half_without(networks: pd.DataFrame) -> int:
    """Returns the largest m at which half of the training sets have no far sample."""
    shares = (networks["n_far"] == 0).groupby(networks["m"]).mean()
    return int(max(shares.index[shares >= 0.5], default=shares.index.min()))


def draw_learned(rows: pd.DataFrame) -> Figure:
    """Draws the distances of samples against both errors."""
    networks, exact = (where(rows, learner=learner) for learner in (LEARNED, EXACT))
    figure, axes = panels(4, 14, 3.2)
    places = (
        ("levels_l2", "tv", "σ L2 over all levels"),
        ("levels_q", "tv", "σ Dᵟ over all levels"),
        ("levels_l2", "w2", "σ L2 over all levels"),
        ("levels_q", "w2", "σ Dᵟ over all levels"),
    )
    for axis, (error, outcome, name) in zip(axes, places, strict=True):
        for label, some, color in (
            ("far samples", networks[networks["n_far"] > 0], FLOW),
            ("none; size: m", networks[networks["n_far"] == 0], BASELINE),
        ):
            sizes = 8 + 6 * np.log2(some["m"].astype(float) / networks["m"].min())
            axis.scatter(some[error], some[outcome], s=sizes, color=color, alpha=0.7, label=label)
        axis.axhline(exact[outcome].mean(), color="black", ls=":", lw=0.8, label="exact score")
        axis.set(xlabel=name, ylabel=outcome)
    axes[0].legend(fontsize=7)
    return figure
