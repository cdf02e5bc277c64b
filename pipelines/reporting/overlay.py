"""Curves of one metric of several runs, in one figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from pipelines.reporting.style import STYLE, panels, save
from pipelines.tracking.reading import Point

SETTLED = 0.1
"""Share of a curve, at its start, that may leave the figure."""


def write(path: Path, metric: str, curves: Mapping[str, Sequence[Point]]) -> None:
    """Draws the curves over steps and over time; runs that do not have the metric are left out.

    Arguments:
        path: PNG file; its folder is made.
        metric: Name of the metric.
        curves: Points by rising step, by name of the run.
    """
    drawn = {name: points for name, points in curves.items() if points}
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = panels(2, sharey=True)
        for name, points in drawn.items():
            values = [point.value for point in points]
            left.plot([point.step for point in points], values, marker=".", label=name)
            right.plot(_seconds(points), values, marker=".")
        left.set(xlabel="step", ylabel=metric, ylim=_limits(drawn))
        right.set(xlabel="time since the first point (s)")
        left.legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        save(figure, path)


def _seconds(points: Sequence[Point]) -> list[float]:
    return [(point.timestamp - points[0].timestamp) / 1000 for point in points]


def _limits(curves: Mapping[str, Sequence[Point]]) -> tuple[float, float]:
    """Returns limits that show where the curves settle."""
    settled = [points[int(SETTLED * len(points)) :] for points in curves.values()]
    values = np.array([point.value for points in settled for point in points])
    low, high = values.min(), values.max()
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin
