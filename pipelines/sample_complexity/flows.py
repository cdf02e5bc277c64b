"""Flows beside free networks: errors of both that learned from the same training sets.

Columns of rows beside those in ``rows.py``: ``level``, the noise level over σ, and ``weights``.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ebflow.complexity import errors
from ebflow.complexity.denoisers import Ensemble, RectifiedDenoisers
from ebflow.complexity.flows import spline_flows
from ebflow.complexity.instances import HALF, far_mode, stratified, worst_eta
from ebflow.randomness import generator as derive
from pipelines.reporting.claims import Measured, Question
from pipelines.reporting.statistics import below, student
from pipelines.reporting.style import BASELINE, FLOW, panels
from pipelines.sample_complexity.config import DELTAS, EPSILON, FlowCell
from pipelines.sample_complexity.rows import where
from pipelines.sample_complexity.training import TrainingSets, train

FLOWS, FREE = "flows", "free networks"  # The names in the column ``learner``

TEST = 2000  # Test points of each component
BETTER = 0.1  # Learners differ if the logarithm of their errors' ratio is more than this

# Names and styles of both errors in the figure
LINES = {"sigma_l2": ("mean square", "-"), f"sigma_d_{DELTAS[-1]:g}": ("quantile", "--")}

TAIL = f"sigma_d_{DELTAS[-1]:g}"  # The column of the error at the quantile


def flows(cell: FlowCell) -> Iterator[dict[str, Any]]:
    """Yields the errors of flows and of free networks at one noise level."""
    eta = worst_eta(cell.ratio, EPSILON)
    truth = far_mode(cell.ratio, eta, size=cell.size, dtype=torch.float32)
    sigma = HALF * cell.level
    sets = _training_sets(cell)
    test = stratified(truth, TEST, sigma=sigma, generator=derive(cell.seed, "test"))
    exact = truth.smoothed(sigma).score(test.noisy)
    for learner in (FLOWS, FREE):
        noise = derive(cell.seed, "flows", learner, f"{cell.level:g}", cell.first)
        ensemble = _untrained(cell, learner, len(sets.owner), noise)
        for _ in train(
            ensemble, sets, generator=noise, lengths=(cell.steps,), least=sigma, rows=cell.batch
        ):
            pass
        gaps = ensemble.score(test.noisy, sigma) - exact
        yield {
            "panel": "flows", "learner": learner, "ratio": cell.ratio, "size": cell.size,
            "level": cell.level, "eta": eta, "weights": ensemble.size, **sets.columns,
            **errors.summary(sigma * gaps.norm(dim=-1), test, DELTAS),
        }  # fmt: skip


def _training_sets(cell: FlowCell) -> TrainingSets:
    """Returns the training sets, which are the same at every level."""
    truth = far_mode(
        cell.ratio, worst_eta(cell.ratio, EPSILON), size=cell.size, dtype=torch.float32
    )

    def sample(index: int) -> tuple[Tensor, Tensor]:
        noise = derive(cell.seed, "flows", "set", index)
        clean, component = truth.sample_with_components(max(cell.sizes), generator=noise)
        return clean, component > 0

    return TrainingSets.sampled(sample, cell.sets, cell.sizes)


def _untrained(cell: FlowCell, learner: str, count: int, noise: torch.Generator) -> Ensemble:
    if learner == FREE:
        return RectifiedDenoisers(
            count, cell.size, radius=cell.ratio * HALF, width=cell.width, depth=2, generator=noise
        )
    scale = (HALF**2 + (HALF * cell.level) ** 2) ** 0.5
    return spline_flows(count, cell.size, depth=cell.depth, scale=scale, generator=noise)


def about_flows(rows: pd.DataFrame) -> Iterator[Measured]:
    """Yields the claims, paired by training set."""
    note = "a flow is normalized, a network is not; mean over {}levels, paired by training set"
    least = rows["m"].min()
    for where_m, some, over in (
        ("", rows, "m and "),
        (f" from {least} samples", where(rows, m=least), ""),
    ):
        yield Question(
            f"At a quantile flows err less than free networks{where_m}, by more than {BETTER:g}",
            "error of flows over that of networks, as a logarithm", below(-BETTER),
            figure="flows", note=note.format(over), item="G7",
        ), student(gains(some, TAIL))  # fmt: skip
    yield Question(
        f"In mean square on the bulk flows err less than free networks, by more than {BETTER:g}",
        "error of flows over that of networks, as a logarithm", below(-BETTER),
        figure="flows", note=note.format("m and "), item="G7",
    ), student(gains(rows, "sigma_l2_bulk"))  # fmt: skip


def gains(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Returns the mean logarithm of the ratio of errors, of each training set."""
    keys = ["seed", "level", "m"]
    first, second = (
        np.log(where(rows, learner=learner).set_index(keys)[column].astype(float))
        for learner in (FLOWS, FREE)
    )
    return (first - second).groupby("seed").mean().to_numpy()


def draw_flows(rows: pd.DataFrame) -> Figure:
    """Draws both errors of both learners against m, a panel for each noise level."""
    levels = sorted(rows["level"].unique())
    figure, axes = panels(len(levels), 4.0 * len(levels), 3.2, squeeze=False)
    for axis, level in zip(axes.flat, levels, strict=True):
        for learner, color in ((FLOWS, FLOW), (FREE, BASELINE)):
            some = where(rows, level=level, learner=learner)
            for column, (name, style) in LINES.items():
                median = some.groupby("m")[column].median()
                at = median.index.to_numpy(float)
                axis.plot(at, median, style, marker=".", color=color, label=f"{learner}, {name}")
        axis.set(xscale="log", yscale="log", xlabel="m", ylabel="median error, times the noise")
        axis.set_title(f"noise {level:g} σ")
        sizes = sorted(rows["m"].unique())
        axis.set_xticks([float(m) for m in sizes], [f"{m:,}" for m in sizes])
        axis.minorticks_off()
    axes[0, 0].legend(fontsize=7)
    return figure
