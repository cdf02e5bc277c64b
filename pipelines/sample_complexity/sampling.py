"""Sampling by scores that are exact, and by scores that are spoiled on a set of small mass.

Columns of rows beside those in ``rows.py``: ``sampler``, ``delta`` and ``epsilon`` (the spoiled
mass and the error elsewhere), ``bound`` (of the total variation from samples of the exact score),
and the distances of ``ebflow.complexity.distances``.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ebflow.complexity.distances import distances
from ebflow.complexity.instances import HALF, far_mode, worst_eta
from ebflow.complexity.samplers import ladder, probability_flow, reverse_sde
from ebflow.complexity.spoiled import Spoiled
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.reporting.claims import Measured, Question
from pipelines.reporting.statistics import below, student, within
from pipelines.reporting.style import BASELINE, FLOW, panels
from pipelines.sample_complexity.config import EPSILON, SpoiledCell, StepsCell
from pipelines.sample_complexity.rows import where

WIDEST = 2.0  # The largest noise level, in units of R
MOST = 1.0  # C: total variation rises by less than C (δ + ε)

SAME = 0.25  # Rises and logarithms of distances differ if they differ by more than this

SAMPLERS = ("reverse SDE", "probability flow")

# Labels of axes by the columns of rows.
LABELS = {
    "tv": "total variation",
    "w1": "Wasserstein distance W₁",
    "far_mass": "mass of the far mode",
    "delta": "spoiled mass δ",
    "epsilon": "error ε elsewhere",
}


def steps(cell: StepsCell) -> Iterator[dict[str, Any]]:
    """Yields the distances of samples of the exact and of a spoiled score, by the steps N."""
    common = cell.model_dump(exclude={"numbers", "delta"})
    for number in cell.numbers:
        one = SpoiledCell(steps=number, deltas=(cell.delta,), epsilons=(), **common)
        for columns in spoiled(one):
            yield columns | {"panel": "steps"}


def spoiled(cell: SpoiledCell) -> Iterator[dict[str, Any]]:
    """Yields the distances of samples, for each set, sampler, δ and ε."""
    eta = worst_eta(cell.ratio, EPSILON)
    truth = far_mode(cell.ratio, eta)
    levels = ladder(WIDEST * cell.ratio * HALF, HALF, cell.steps)
    pairs = [(0.0, 0.0)]
    pairs += [(delta, 0.0) for delta in cell.deltas]
    pairs += [(0.0, epsilon) for epsilon in cell.epsilons]
    for index in cell.sets:
        for delta, epsilon in pairs:
            places = derive(cell.seed, "spoiled", index)
            scores = Spoiled.at(truth, levels, delta=delta, epsilon=epsilon, generator=places)
            for sampler in SAMPLERS:
                noise = derive(cell.seed, "sampling", sampler, index)
                x = _samples(sampler, scores, (cell.samples, 1), noise)
                found = distances(x, truth.smoothed(HALF), generator=noise)
                yield {
                    "panel": "sampling", "learner": "spoiled score", "sampler": sampler,
                    "ratio": cell.ratio, "size": 1, "eta": eta, "seed": [index], "delta": delta,
                    "epsilon": epsilon, "bound": scores.bound, "steps": cell.steps,
                    "sigma_l2": scores.mean_square, **found._asdict(),
                }  # fmt: skip


def _samples(sampler: str, scores: Spoiled, shape: tuple[int, int], noise: Any) -> Any:  # noqa: ANN401
    """Returns samples of spoiled scores."""
    like, levels = scores.clean.means, scores.levels
    if sampler == "reverse SDE":
        return reverse_sde(scores, shape, like, levels=levels, generator=noise)
    return probability_flow(scores, levels[0] * normal(shape, like, noise), levels=levels)


def rises(rows: pd.DataFrame, sampler: str, key: str) -> np.ndarray:
    """Returns the rise of the total variation over δ or ε, fitted through 0, of each set."""
    rows = where(rows, sampler=sampler)
    other = "epsilon" if key == "delta" else "delta"
    table = where(rows, **{other: 0.0}).pivot(index="seed", columns=key, values="tv")
    at = table.columns.to_numpy(float)
    gaps = table.to_numpy() - table[0.0].to_numpy()[:, None]
    return gaps @ at / (at @ at)


def about_sampling(rows: pd.DataFrame) -> Iterator[Measured]:
    """Yields the claims about spoiled scores."""
    places = (
        ("reverse SDE", "delta", "right but on a set of mass δ"),
        ("reverse SDE", "epsilon", "off by ε at every point"),
        ("probability flow", "delta", "right but on a set of mass δ"),
    )
    for sampler, key, what in places:
        name = "δ" if key == "delta" else "ε"
        yield Question(
            f"Scores {what} sample well by the {sampler}",
            f"rise of the total variation over {name}", below(MOST), figure="sampling",
            item="G5", note="against samples of the exact score from the same noise; C = 1",
        ), student(rises(rows, sampler, key))  # fmt: skip


def about_steps(rows: pd.DataFrame) -> Iterator[Measured]:
    """Yields the claims about the number of steps N, by the reverse SDE."""
    few, many = int(rows["steps"].min()), int(rows["steps"].max())
    first, last = (where(rows, steps=number) for number in (few, many))
    gap = rises(last, SAMPLERS[0], "delta") - rises(first, SAMPLERS[0], "delta")
    yield Question(
        f"A mass δ/N at each of N levels costs as much with N = {many} as with N = {few}",
        "difference of the rises of the total variation over δ", within(SAME), figure="steps",
        note="reverse SDE; paired by repetition", item="G5",
    ), student(gap)  # fmt: skip
    yield Question(
        f"The exact score samples better with N = {many} than with N = {few} steps",
        "logarithm of the ratio of total variations", below(-SAME), figure="steps",
        note="reverse SDE; paired by repetition", item="G5",
    ), student(np.log(_exact(last)) - np.log(_exact(first)))  # fmt: skip


def _exact(rows: pd.DataFrame) -> np.ndarray:
    """Returns the total variation of the exact score by the reverse SDE, of each repetition."""
    some = where(rows, sampler=SAMPLERS[0], delta=0.0, epsilon=0.0)
    return some.sort_values("seed")["tv"].to_numpy()


def draw_steps(rows: pd.DataFrame) -> Figure:
    """Draws distances against the number of steps, of the exact and of a spoiled score."""
    figure, axes = panels(3, 11, 3.2)
    for axis, column in zip(axes, ("tv", "w1", "w2"), strict=True):
        for sampler, color in zip(SAMPLERS, (FLOW, BASELINE), strict=True):
            for delta, style in zip(sorted(rows["delta"].unique()), ("-", "--"), strict=True):
                some = where(rows, sampler=sampler, delta=delta).groupby("steps")[column].mean()
                label = f"{sampler}, δ = {delta:g}"
                axis.plot(some.index, some, style, marker=".", color=color, label=label)
        axis.set(xscale="log", yscale="log", xlabel="steps N", ylabel=column)
    axes[0].legend(fontsize=7)
    return figure


def draw_sampling(rows: pd.DataFrame) -> Figure:
    """Draws total variation and W₁ against δ and ε, beside the bound."""
    figure, axes = panels(4, 14, 3.2)
    quantities = [("tv", "delta"), ("tv", "epsilon"), ("w1", "delta"), ("far_mass", "delta")]
    for axis, (column, key) in zip(axes, quantities, strict=True):
        other = "epsilon" if key == "delta" else "delta"
        some = where(rows, **{other: 0.0})
        for sampler, color in zip(SAMPLERS, (FLOW, BASELINE), strict=True):
            means = where(some, sampler=sampler).groupby(key)[[column, "bound"]].mean()
            axis.plot(means.index, means[column], marker=".", color=color, label=sampler)
        if column == "tv":
            start = where(some, sampler=SAMPLERS[0], **{key: 0.0})["tv"].mean()
            axis.plot(means.index, start + means["bound"], "k--", lw=1, label="bound")
        axis.set(xlabel=LABELS[key], ylabel=LABELS[column])
    axes[0].legend(fontsize=7)
    return figure
