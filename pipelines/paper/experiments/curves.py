"""Figures of the best validation NLL so far against training seconds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.reporting.style import panels

GREYS = ("0.0", "0.4", "0.6")
DASHES = ("-", "--", "-.", ":")
GAP = 0.055
"""Least distance between labels, as a share of the axis."""


class Line(NamedTuple):
    """A training: its name, and pairs of seconds and validation NLL."""

    name: str
    points: Sequence[tuple[float, float]]

    @property
    def seconds(self) -> np.ndarray:
        """The training seconds."""
        return np.array(self.points)[:, 0]

    @property
    def nll(self) -> np.ndarray:
        """The best so far."""
        return np.minimum.accumulate(np.array(self.points)[:, 1])


def drawn(trainings: Mapping[str, Sequence[Line]]) -> Figure:
    """Returns a figure of a panel a title."""
    figure, axes = panels(len(trainings), 5 * len(trainings), 4.6, sharex=True, sharey=True)
    every = [line for lines in trainings.values() for line in lines]
    limits = _limits([line.nll[-1] for line in every])
    last = max(line.seconds[-1] for line in every)
    for axis, (title, lines) in zip(axes, trainings.items(), strict=True):
        axis.set(title=title, xlabel="training (s)", ylim=limits, xlim=(0, 1.3 * last))
        _panel(axis, lines, last, limits)
    axes[0].set_ylabel("validation NLL, best so far (nats)")
    return figure


def _limits(ends: Sequence[float]) -> tuple[float, float]:
    """Returns limits that show how trainings end rather than how they begin."""
    low, high = min(ends), float(np.quantile(ends, 0.8))
    spread = max(high - low, 0.02 * abs(low), 1e-3)
    return low - 0.15 * spread, high + 1.5 * spread


def _panel(axis: Axes, lines: Sequence[Line], last: float, limits: tuple[float, float]) -> None:
    """Draws one line a method, its name behind its end."""
    ends = [float(np.clip(line.nll[-1], *limits)) for line in lines]
    places = _spread(ends, GAP * (limits[1] - limits[0]), limits)
    for index, (line, end, place) in enumerate(zip(lines, ends, places, strict=True)):
        style = {"color": GREYS[index % 3], "ls": DASHES[index % 4]}
        few = len(line.seconds) < 12
        axis.plot(line.seconds, line.nll, marker="o" if few else None, ms=3, lw=1.3, **style)
        axis.annotate(
            line.name, (line.seconds[-1], end), (1.08 * last, place), fontsize=8, va="center",
            color=style["color"], arrowprops={"arrowstyle": "-", "lw": 0.5, **style},
        )  # fmt: skip


def _spread(values: Sequence[float], gap: float, limits: tuple[float, float]) -> list[float]:
    """Returns places near the values, in their order, a gap apart and inside of the limits."""
    order = np.argsort(values, kind="stable")
    places = np.array(values, dtype=float)[order]
    steps = gap * np.arange(len(places))
    room = limits[0] + gap / 2 + steps, limits[1] - gap / 2 - steps[::-1]
    up = np.maximum.accumulate(places - steps) + steps
    down = np.minimum.accumulate((places - steps)[::-1])[::-1] + steps
    found = np.empty(len(places))
    found[order] = np.minimum(np.maximum((up + down) / 2, room[0]), room[1])
    return found.tolist()
