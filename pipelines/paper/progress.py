"""Curves of trainings: the validation NLL against steps and against seconds.

They are the metrics that the trainings have logged, in MLflow and in their folders.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from pipelines import metrics_log
from pipelines.paper.cell import Finished
from pipelines.reporting.style import panels

STYLES = ("-", "--", "-.", ":")


class Curve(NamedTuple):
    """The validations of a training, each list with one entry for each."""

    steps: list[int]
    seconds: list[float]  #: Seconds of steps and data, without validations
    nlls: list[float]  #: NLL of the averaged weights in nats

    def best_within(self, seconds: float) -> float | None:
        """Returns the least NLL of a validation within the seconds; None without one."""
        nlls = [
            nll for spent, nll in zip(self.seconds, self.nlls, strict=True) if spent <= seconds
        ]
        return min(nlls, default=None)


def curve(one: Finished) -> Curve:
    """Returns the curve of a trained flow."""
    logged = metrics_log.read(one.folders["trained"] / metrics_log.FILE)
    rows = metrics_log.curve(logged, "validate")
    metrics = [row["metrics"] for row in rows]
    return Curve(
        [row["step"] for row in rows],
        [one["time/train_s"] for one in metrics],
        [one["val/nll"] for one in metrics],
    )


def draw(curves: Mapping[str, Sequence[Curve]], *, titles: Sequence[str] = ()) -> Figure:
    """Draws NLL against steps and against seconds; curves of a name are seeds, in one colour."""
    figure, axes = panels(2, 9, 3.6, sharey=True)
    for number, (name, seeds) in enumerate(curves.items()):
        for place, one in enumerate(seeds):
            look = {
                "color": f"C{number % 10}",
                "linestyle": STYLES[number % len(STYLES)],
                "label": name if not place else None,
            }
            axes[0].plot(one.steps, one.nlls, **look)
            axes[1].plot(one.seconds, one.nlls, **look)
    axes[0].set(xlabel="steps", ylabel="validation NLL (nats)")
    axes[1].set(xlabel="seconds of training")
    focus = [nll for seeds in curves.values() for one in seeds for nll in one.nlls[-1:]]
    first = [nll for seeds in curves.values() for one in seeds for nll in one.nlls[:1]]
    if focus:
        low, high = min(focus), max(focus)
        spare = max(high - low, 0.05 * (max(first) - low))
        axes[0].set_ylim(low - 0.1 * spare, high + spare)
    axes[1].legend(fontsize=7)
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title)
    return figure
