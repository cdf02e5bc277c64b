"""Validation NLL against training seconds: read off trainings, and drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pipelines.reporting.style import panels
from pipelines.training import metrics_log

DASHES = ("-", "--", "-.", ":")


Points = Sequence[Sequence[float]]
"""Pairs of training seconds and validation NLL."""


def validations(trained: Path) -> list[metrics_log.Row]:
    """Returns the validations of a training's folder, by rising step."""
    return metrics_log.curve(metrics_log.read(trained / metrics_log.FILE)[0], "validate")


def curve(trained: Path) -> Points:
    """Returns training seconds and validation NLL at the validations of a training's folder."""
    metrics = (step["metrics"] for step in validations(trained))
    return [[found["time/train_s"], found["val/nll"]] for found in metrics]


def drawn(trainings: Mapping[str, Mapping[str, Points]]) -> Figure:
    """Returns a figure of a panel a title: the best validation NLL so far, a line a training."""
    figure, axes = panels(len(trainings), 5 * len(trainings), 4.6, sharex=True, sharey=True)
    ends = []
    for axis, (title, lines) in zip(axes, trainings.items(), strict=True):
        for index, (name, points) in enumerate(lines.items()):
            seconds, nll = np.array(points).T
            best = np.minimum.accumulate(nll)
            style = {"color": f"C{index % 10}", "ls": DASHES[index % len(DASHES)], "lw": 1.3}
            axis.plot(seconds, best, marker="." if len(best) < 12 else None, label=name, **style)
            ends.append(best[-1])
        axis.set(title=title, xlabel="training (s)")
        axis.legend(fontsize=7)
    axes[0].set(ylabel="validation NLL, best so far (nats)", ylim=_limits(ends))
    return figure


def _limits(ends: Sequence[float]) -> tuple[float, float]:
    """Returns limits that show how trainings end rather than how they begin."""
    low, high = min(ends), float(np.quantile(ends, 0.8))
    spread = max(high - low, 0.02 * abs(low), 1e-3)
    return low - 0.15 * spread, high + 1.5 * spread
