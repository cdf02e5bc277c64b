"""Figures of a training: its curves, and the likelihoods that it came to."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipelines.density.fit import Fit
from pipelines.density.likelihoods import lines
from pipelines.reporting.style import BASELINE, DATA, FLOW, LIGHT, panels
from pipelines.tracking.metrics_log import Row, curve

BINS = 40

Rows = Sequence[Row]
Known = Mapping[str, np.ndarray]


def curves(
    rows: Rows, numbers: Mapping[str, float], fit: Fit, log_probs: Known
) -> dict[str, Figure]:
    """Returns the figures by name.

    Arguments:
        rows: What the training logged.
        numbers: What the evaluation found.
        fit: Test rows beside samples.
        log_probs: The log-densities of ``train`` and ``test`` rows in nats.
    """
    return {
        "training": _training(rows, numbers),
        "likelihood": _likelihood(log_probs, fit),
        "diagnosis": _diagnosis(rows),
    }


def _training(rows: Rows, numbers: Mapping[str, float]) -> Figure:
    names = ("val/nll", "train/nll", "time/train_s")
    steps, nll, fitted, seconds = _series(rows, "validate", *names)
    baselines = lines(numbers)[1:]
    figure, axes = panels(2, height=3.3, sharey=True)
    for axis, x, label in zip(axes, (steps, seconds), ("step", "training time (s)"), strict=True):
        axis.plot(x, nll, color=FLOW, marker=".", label="flow, validation rows")
        axis.plot(x, fitted, color=FLOW, ls=":", label="flow, 250 random training rows")
        for line, style in zip(baselines, ("--", "-."), strict=True):
            axis.axhline(line.val_nll, color=BASELINE, ls=style, label=line.name)
        axis.set_xlabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(5))
    axes[0].set_ylabel("NLL of the averaged weights (nats)")
    axes[0].set_ylim(*_limits([fitted[-1], *nll], [line.val_nll for line in baselines]))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def _limits(nll: Sequence[float], baselines: Sequence[float]) -> tuple[float, float]:
    """Returns limits that show the end of training and the baselines; a bad start may leave."""
    low, high = min(*nll, *baselines), max(nll[-1], *baselines)
    return low - 0.1 * (high - low + 1), high + 0.5 * (high - low + 1)


def _likelihood(log_probs: Known, fit: Fit) -> Figure:
    figure, axes = panels(1 if fit.pit is None else 2, height=3, squeeze=False)
    _histogram(axes[0, 0], log_probs)
    if fit.pit is not None:
        _calibration(axes[0, 1], fit.pit.sort().values.numpy(), fit.apart["latents"].bound)
    return figure


def _histogram(axis: Axes, log_probs: Known) -> None:
    """Draws log-densities; those below the 0.2 % of the test rows are in the first bin."""
    test, train = log_probs["test"], log_probs["train"]
    low, high = np.quantile(test, 0.002), max(test.max(), train.max())
    edges, of_test, of_train = histograms(test, train, low, high)
    axis.stairs(of_test, edges, fill=True, color=LIGHT, label="test rows")
    axis.stairs(of_train, edges, color=FLOW, lw=1.2, label="training rows")
    axis.set(xlabel="log-density (nats)", ylabel="share of rows")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.legend(loc="upper left")


def histograms(
    x: np.ndarray, y: np.ndarray, low: float, high: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the edges of bins, and the shares of two samples; the outer ones hold the rest."""
    edges = np.linspace(low, high, min(BINS, 4 + math.isqrt(len(x))) + 1)
    return edges, *(np.histogram(v.clip(low, high), edges)[0] / len(v) for v in (x, y))


def _calibration(axis: Axes, pit: np.ndarray, bound: float) -> None:
    level = np.array([0, 1])
    axis.fill_between(
        level, level - bound, level + bound, color=LIGHT, lw=0, label="95 % by chance"
    )
    axis.plot(level, level, color="black", lw=0.8, ls="--", label="a true flow")
    axis.step([0, *pit, 1], [*np.linspace(0, 1, len(pit) + 1), 1], color=FLOW, where="post",
              label="test rows")  # fmt: skip
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="PIT of the latent's distance from 0",
             ylabel="share of rows up to it")  # fmt: skip
    axis.legend(loc="upper left")


def _diagnosis(rows: Rows) -> Figure:
    names = ("latent/var_min", "latent/var_max", "latent/mean_norm2")
    steps, least, most, mean = _series(rows, "validate", *names)
    figure, (left, right) = panels(2)
    at, losses = _series(rows, "log", "train/loss")
    left.plot(at, losses, color=FLOW, marker="." if len(at) == 1 else "")
    left.set_ylabel("training loss")
    right.plot(steps, least, color=FLOW, label="smallest variance")
    right.plot(steps, most, color=BASELINE, ls="--", label="largest variance")
    right.plot(steps, mean, color=DATA, ls=":", label="squared mean")
    right.axhline(1, color="black", lw=0.5)
    right.set_yscale("symlog", linthresh=0.1)
    right.set_ylim(bottom=-0.1)
    right.set_ylabel("latent of validation data")
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    for axis in (left, right):
        axis.set_xlabel("step")
        axis.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def _series(rows: Rows, kind: str, *names: str) -> list[list[float]]:
    """Returns the steps of the rows of a kind, and metrics at them."""
    found = curve(rows, kind)
    steps = [row["step"] for row in found]
    return [steps, *([row["metrics"][name] for row in found] for name in names)]
