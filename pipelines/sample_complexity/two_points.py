"""Two densities that samples do not distinguish, although their scores differ much.

They are a bulk with a far mode at R and one at −R. Columns of rows beside those in ``rows.py``:
``wrong``, True if empirical risk minimization over both has chosen the wrong one.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from ebflow.complexity import errors, instances
from ebflow.complexity.instances import HALF, far_mode, stratified, worst_eta
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.reporting.claims import Check, Measured, Question
from pipelines.reporting.statistics import above, student
from pipelines.reporting.style import BASELINE, DATA, FLOW, panels
from pipelines.sample_complexity.config import DELTAS, EPSILON, TwoPointCell
from pipelines.sample_complexity.rows import matrix, where

SHARES = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0)  # The m, over 1/η
TEST = 2000  # Test points of each component
DRAWN = 8.0  # The R/σ of the densities in the figure

RARE = 1e-3  # How rarely a correct program fails the check
OFTENER = 0.1  # Errors differ if they exceed ε in shares of training sets that differ by more

TAIL = f"sigma_d_{DELTAS[-1]:g}"  # The column of the error at the quantile


def two_points(cell: TwoPointCell) -> Iterator[dict[str, Any]]:
    """Yields the errors of the side that is chosen at every m, for each training set."""
    for ratio in cell.ratios:
        yield from _at_ratio(cell, ratio)


def _at_ratio(cell: TwoPointCell, ratio: float) -> Iterator[dict[str, Any]]:
    eta = worst_eta(ratio, EPSILON)
    sizes = sorted({max(1, round(share / eta)) for share in SHARES})
    truth, other = far_mode(ratio, eta), far_mode(-ratio, eta)
    smooth = [side.smoothed(HALF) for side in (truth, other)]
    test = stratified(truth, TEST, generator=derive(cell.seed, "test"))
    gaps = torch.stack([side.score(test.noisy) - smooth[0].score(test.noisy) for side in smooth])
    of_each = errors.summary(HALF * gaps.norm(dim=-1), test, DELTAS)
    for index in cell.sets:
        noise = derive(cell.seed, "two points", f"{ratio:g}", index)
        clean, component = truth.sample_with_components(sizes[-1], generator=noise)
        z = normal(clean.shape, clean, noise)
        losses = instances.cumulative_losses(
            [side.score for side in smooth], clean + HALF * z, -z / HALF, sizes
        )
        chosen = instances.erm(losses, generator=noise)
        yield {
            "panel": "two points", "learner": "two points", "ratio": ratio, "size": 1, "eta": eta,
            "m": sizes, "seed": index, "wrong": chosen > 0,
            "n_far": component.cumsum(0)[torch.tensor(sizes) - 1],
            **{name: values[chosen] for name, values in of_each.items()},
        }  # fmt: skip


def chance_of_error(m: float | np.ndarray, eta: float, candidates: int = 2) -> float | np.ndarray:
    """Returns (1 − 1/k) (1 − η)ᵐ: no far sample exists, and the guess among k is wrong."""
    return (1 - 1 / candidates) * (1 - eta) ** m


def check_chances(rows: pd.DataFrame) -> Check:
    """Compares the frequency of wrong choices with ½ (1 − η)ᵐ."""
    found = []
    for _, some in rows.groupby("ratio"):
        wrong, sizes = matrix(some.astype({"wrong": float}), "wrong")
        for m, column in zip(sizes, wrong.T, strict=True):
            expected = chance_of_error(m, float(some["eta"].iloc[0]))
            found.append(stats.binomtest(int(column.sum()), len(column), expected).pvalue)
    return Check.of(
        "Empirical risk minimization over two densities errs with probability ½ (1 − η)ᵐ",
        f"least p of {len(found)} points, times their number",
        min(1.0, len(found) * float(min(found))), above(RARE),
        "Two-sided binomial tests, corrected by Bonferroni.", "G1",
    )  # fmt: skip


def about_two_points(two: pd.DataFrame, finite: pd.DataFrame) -> Iterator[Measured]:
    """Yields the claims on how often each error exceeds ε with 1/η samples."""
    places = (
        ("two densities", two, 0.18),
        ("a finite class of 45", finite, 0.29),
    )
    for name, rows, expected in places:
        yield Question(
            f"With 1/η samples of {name} the mean square error exceeds ε more often than the "
            "quantile error",
            "difference of the shares of training sets in which it does", above(OFTENER),
            figure="indistinguishable", item="G1",
            note=f"about {expected:g} if only a far sample decides; paired by training set, all "
            "R/σ",
        ), student(_oftener(rows))  # fmt: skip


def _oftener(rows: pd.DataFrame) -> np.ndarray:
    """Returns 1 where mean square alone exceeds ε at m = 1/η, −1 where the quantile does."""
    parts = []
    for _, some in rows.groupby("ratio"):
        sizes = some["m"].unique()
        nearest = sizes[np.abs(np.log(sizes.astype(float) * some["eta"].iloc[0])).argmin()]
        at = where(some, m=nearest)
        mean, tail = (at[name].to_numpy(float) > EPSILON for name in ("sigma_l2", TAIL))
        parts.append(mean.astype(float) - tail)
    return np.concatenate(parts)


def draw_two_points(two: pd.DataFrame, finite: pd.DataFrame) -> Figure:
    """Draws densities and scores of both sides, and how often each error exceeds ε."""
    figure, axes = panels(4, 15, 3.2)
    _densities(axes[0], axes[1])
    for axis, rows, name, count in (
        (axes[2], two, "two densities", 2),
        (axes[3], finite, "finite class of 45", 5),
    ):
        _chances(axis, rows, count)
        axis.set(xscale="log", xlabel="m η", ylabel="Pr[error > ε]", title=name)
    axes[2].legend(fontsize=7)
    return figure


def _densities(density: Axes, score: Axes) -> None:
    eta = worst_eta(DRAWN, EPSILON)
    x = torch.linspace(-1.6 * DRAWN * HALF, 1.6 * DRAWN * HALF, 800, dtype=torch.float64)[:, None]
    for side, name, style, color in ((1, "p₊", "-", FLOW), (-1, "p₋", "--", BASELINE)):
        smooth = far_mode(side * DRAWN, eta).smoothed(HALF)
        density.plot(x, smooth.log_prob(x).exp(), style, color=color, label=name)
        score.plot(x, smooth.score(x), style, color=color, label=name)
    density.set(xlabel="x", ylabel="density", title=f"R/σ = {DRAWN:g}, η = {eta:.3f}")
    score.set(xlabel="x", ylabel="score")
    density.legend()


def _chances(axis: Axes, rows: pd.DataFrame, candidates: int) -> None:
    """Draws the shares of training sets whose error exceeds ε, a line for each R/σ."""
    for index, (_, some) in enumerate(rows.groupby("ratio")):
        eta = float(some["eta"].iloc[0])
        for column, name, color in (
            ("sigma_l2", "mean square", BASELINE),
            (TAIL, "quantile", FLOW),
        ):
            values, sizes = matrix(some, column)
            label = name if index == 0 else None
            axis.plot(
                np.array(sizes) * eta, (values > EPSILON).mean(0), marker=".", ms=4, lw=0.8,
                color=color, label=label,
            )  # fmt: skip
    at = np.geomspace(0.02, 4, 60)
    label = "(1 − 1/k) (1 − η)ᵐ"
    axis.plot(at, chance_of_error(at / 1e-4, 1e-4, candidates), ":", color=DATA, label=label)
