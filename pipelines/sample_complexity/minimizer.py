"""The instance on which every empirical minimizer fails: its cells, claims and figure.

Columns of rows beside those in ``rows.py``: ``height`` (S of the step), and ``place`` (t).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from ebflow.complexity import errors
from ebflow.complexity.classes import easy_samples
from ebflow.complexity.instances import HALF, Stratified
from ebflow.complexity.steps import minimizer, step, step_height, tail
from ebflow.randomness import generator as derive
from pipelines.reporting.claims import Check, Measured, Question
from pipelines.reporting.statistics import above, below, student
from pipelines.reporting.style import BASELINE, DATA, FLOW, panels
from pipelines.sample_complexity.config import DELTAS, StepCell
from pipelines.sample_complexity.far_mode import geometric
from pipelines.sample_complexity.rows import matrix, where

MINIMIZER = "empirical minimizer"  # The name in the column ``learner``

ERROR = 0.7  # The error of a wrong choice, 2 ε, multiplied by σ
FIRST, RATIO, REACH = 2, 1.1, 4.0  # The grid of m: its end is over the mass beyond the step
SHARE = 0.25  # The m of the claim, over 1 / the mass beyond the step

POINTS = 100_000  # Nodes of the quantiles in the bulk
REACH_X = 12.0  # The largest |x| of the nodes

TAIL = f"sigma_d_{DELTAS[-1]:g}"  # The column of the error at the quantile


def minimizers(cell: StepCell) -> Iterator[dict[str, Any]]:
    """Yields the errors of the only empirical minimizer at every m, for each training set."""
    for place in cell.places:
        yield from _at_place(cell, place)


def _at_place(cell: StepCell, place: float) -> Iterator[dict[str, Any]]:
    height, mass = step_height(place, ERROR), tail(place)
    sizes = geometric(FIRST, REACH / mass, RATIO)
    of_each = _errors(height, place)
    for index in cell.sets:
        noise = derive(cell.seed, "steps", f"{place:g}", index)
        x, residual = easy_samples(sizes[-1], 1, generator=noise)
        chosen = minimizer(x[:, 0], residual[:, 0], sizes, height=height, at=place)
        beyond = (x[:, 0] > place).cumsum(0)[torch.tensor(sizes) - 1]
        yield {
            "panel": "minimizer", "learner": MINIMIZER, "size": 1, "eta": mass, "place": place,
            "height": height, "m": sizes, "seed": index, "n_far": beyond,
            **{name: values[chosen] for name, values in of_each.items()},
        }  # fmt: skip


def _errors(height: float, place: float) -> dict[str, torch.Tensor]:
    """Returns the errors of truth, s + g and s − g, by sums over a fine grid."""
    x = torch.linspace(-REACH_X, REACH_X, POINTS, dtype=torch.float64)
    density = (-0.5 * x * x).exp()
    weights = density / density.sum()
    g = HALF * step(x, height, place)
    grid = Stratified(x[:, None], weights, torch.zeros(POINTS))
    return errors.measures(torch.stack([0 * g, g, g]), grid, DELTAS)


def about_minimizers(rows: pd.DataFrame) -> Iterator[Measured]:
    """Yields the claim that every minimizer fails."""
    yield Question(
        "Every empirical minimizer of an easy truth fails in mean square with probability above "
        "½, with a quarter of the samples of which one is expected beyond the step",
        "share of training sets whose only minimizer is wrong", above(0.5), figure="minimizer",
        note="0.78 if no sample beyond the step decides; mean over steps", item="G6",
    ), student(_failures(rows))  # fmt: skip


def _failures(rows: pd.DataFrame) -> np.ndarray:
    """Returns 1 if the minimizer at this m is wrong, for each place and training set."""
    parts = []
    for _, some in rows.groupby("place"):
        errors_of, sizes = matrix(some, "sigma_l2")
        mass = some["eta"].iloc[0]
        index = np.abs(np.log(np.array(sizes) * mass / SHARE)).argmin()
        parts.append((errors_of[:, index] > ERROR / 2).astype(float))
    return np.concatenate(parts)


def check_quantiles(rows: pd.DataFrame) -> Check:
    """Returns the check that no minimizer errs at the quantile."""
    return Check.of(
        "No empirical minimizer errs at the quantile, however few its samples",
        f"largest σ Dᵟ at δ = {DELTAS[-1]:g}", float(rows[TAIL].max()), below(ERROR / 2),
        "The mass beyond every step is less than δ.", "G6",
    )  # fmt: skip


def draw_minimizers(rows: pd.DataFrame) -> Figure:
    """Draws the scores of the rivals, and how often each error exceeds ε."""
    figure, axes = panels(2, 8.4, 3.2)
    places = sorted(rows["place"].unique())
    nearest = places[0]
    x = torch.linspace(-4, 4, 600, dtype=torch.float64)
    axes[0].plot(x, -x, color=FLOW, label="truth")
    g = step(x, float(where(rows, place=nearest)["height"].iloc[0]), nearest)
    for sign, style in ((1, "--"), (-1, ":")):
        label = f"{'truth + g' if sign > 0 else 'truth − g'}, t = {nearest:g}"
        axes[0].plot(x, sign * g - x, style, color=BASELINE, label=label)
    axes[0].set(xlabel="x", ylabel="score")
    axes[0].legend(fontsize=7)
    for place in places:
        some = where(rows, place=place)
        mass = some["eta"].iloc[0]
        for column, name, color in (
            ("sigma_l2", "mean square", BASELINE),
            (TAIL, "quantile", FLOW),
        ):
            values, sizes = matrix(some, column)
            label = name if place == nearest else None
            shares = (values > ERROR / 2).mean(0)
            axes[1].plot(np.array(sizes) * mass, shares, color=color, lw=0.9, label=label)
    at = np.geomspace(0.02, 4, 60)
    axes[1].plot(at, np.exp(-at), ":", color=DATA, label="no sample beyond t")
    axes[1].set(xscale="log", xlabel="m · mass beyond t", ylabel="Pr[error > ε]")
    axes[1].legend(fontsize=7)
    return figure
