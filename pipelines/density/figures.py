"""Figures of the report: curves of training, likelihoods, samples beside test rows."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from pipelines.data.manifest import Manifest
from pipelines.density.evaluate import binned
from pipelines.density.fit import WIDEST, Fit, Unlikely, is_image, names, worst_pairs
from pipelines.density.likelihoods import lines
from pipelines.metrics_log import Row, curve
from pipelines.reporting.style import BASELINE, DATA, FLOW, LIGHT, panels, show_tiles

BINS = 40
PAIRS = 6
LABEL = 36
"""Characters of a line of a column's name."""

Rows = Sequence[Row]


def curves(
    rows: Rows, numbers: Mapping[str, float], fit: Fit, log_probs: Mapping[str, np.ndarray]
) -> dict[str, Figure]:
    """Returns the figures by name.

    Arguments:
        rows: The metrics over steps of the training.
        numbers: The metrics of the evaluation.
        fit: Test rows beside samples.
        log_probs: The log-densities of ``train`` and ``test`` rows in nats.
    """
    figure, axes = panels(1 if fit.pit is None else 2, height=3, squeeze=False)
    _histogram(axes[0, 0], log_probs["test"], log_probs["train"])
    if fit.pit is not None:
        _calibration(axes[0, 1], fit.pit.sort().values.numpy(), fit.apart["latents"].bound)
    training, diagnosis = _training(rows, numbers), _diagnosis(rows)
    return {"training": training, "likelihood": figure, "diagnosis": diagnosis}


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


def _histogram(axis: Axes, test: np.ndarray, train: np.ndarray) -> None:
    """Draws log-densities; those below the 0.2 % of the test rows are in the first bin."""
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


def classes(file: Path) -> Figure:
    """Returns accuracy over probability, and the number of rows, from posteriors of test rows."""
    with np.load(file) as arrays:
        posteriors, labels = (torch.from_numpy(arrays[k]) for k in ("log_posteriors", "labels"))
    confidence, accuracy, count = binned(posteriors, labels)
    figure, (left, right) = panels(2)
    error = (accuracy * (1 - accuracy) / count).sqrt()
    left.plot([0, 1], [0, 1], color="black", lw=0.8, label="calibrated")
    left.errorbar(confidence, accuracy, error, marker="o", capsize=3, label="flow")
    left.set(xlabel="probability of the likeliest class", ylabel="accuracy", ylim=(-0.05, 1.05))
    left.legend()
    right.bar(confidence, count, 0.06)
    right.set(xlabel="probability of the likeliest class", ylabel="test rows", yscale="log")
    return figure


def samples(manifest: Manifest, fit: Fit, least: Sequence[Unlikely]) -> dict[str, Figure]:
    """Returns the figures of samples by name.

    Arguments:
        manifest: Describes the data.
        fit: Test rows and samples.
        least: The least likely test rows.
    """
    if is_image(manifest):
        return _pictures(manifest, fit, np.stack([row.x for row in least]))
    found = {"columns": _columns(names(manifest), fit)}
    if "pairs" in fit.apart:
        found["pairs"] = _pairs(names(manifest), fit)
    return found


def _pictures(manifest: Manifest, fit: Fit, least: np.ndarray) -> dict[str, Figure]:
    """Returns test images beside samples, and the least likely images."""
    white = manifest.levels - 1
    figure, axes = panels(2, height=4.2)
    for axis, images, title in zip(axes, (fit.x, fit.y), ("test data", "samples"), strict=True):
        show_tiles(axis, images.numpy() / white, manifest.shape)
        axis.set_title(title)
    unlikely, axis = panels(height=1.1)
    show_tiles(axis, least / white, manifest.shape, len(least))
    return {"samples": figure, "unlikely": unlikely}


def _columns(titles: Sequence[str], fit: Fit) -> Figure:
    """Returns all columns in one axes, a strip for each: what lies beyond its ends is in them."""
    columns = fit.apart["columns"]
    shown = range(len(titles)) if len(titles) <= WIDEST else fit.chosen
    figure, axis = panels(height=0.42 * len(shown) + 0.9)
    for strip, k in enumerate(shown):
        _strip(axis, -strip, fit.x[:, k].numpy(), fit.y[:, k].numpy())
        distance = float(columns.values[k])
        beyond = distance > columns.bound
        text = f"{distance:.2f}{' *' if beyond else ''}"
        weight = "bold" if beyond else "normal"
        axis.text(1.02, 0.3 - strip, text, fontsize=8, va="center", weight=weight)
    axis.text(1.02, 1.05, "distance", fontsize=8, va="center")
    axis.set_yticks([0.3 - k for k in range(len(shown))])
    axis.set_yticklabels([_wrapped(titles[k], LABEL) for k in shown], fontsize=8)
    axis.set(xlim=(-0.01, 1.13), ylim=(0.6 - len(shown), 1.25), xticks=[])
    axis.grid(visible=False)
    axis.tick_params(length=0)
    axis.spines[["left", "bottom"]].set_visible(False)
    handles = [Patch(color=LIGHT, label="test rows"), Line2D([], [], color=FLOW, label="samples")]
    axis.legend(handles=handles, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), fontsize=8)
    return figure


def _wrapped(name: str, width: int) -> str:
    """Returns a name on two lines at most."""
    return textwrap.fill(name, width, max_lines=2, placeholder="…")


def _strip(axis: Axes, base: float, x: np.ndarray, y: np.ndarray) -> None:
    low, high = _ends(x, y)
    edges, of_x, of_y = histograms(x, y, low, high)
    top, places = max(of_x.max(), of_y.max()), np.linspace(0, 1, len(edges))
    axis.stairs(base + 0.7 * of_x / top, places, baseline=base, fill=True, color=LIGHT)
    axis.stairs(base + 0.7 * of_y / top, places, baseline=base, color=FLOW, lw=1.2)
    for place, value, side in ((0, low, "left"), (1, high, "right")):
        axis.text(place, base - 0.03, f"{value:.4g}", fontsize=6, va="top", ha=side, color=DATA)


def _ends(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Returns the ends of what is shown: 99 % of both; samples take two thirds of it at most."""
    (low, high), (least, most) = (np.quantile(values, (0.005, 0.995)) for values in (x, y))
    span = high - low or max(1.0, abs(low))
    low, high = max(min(low, least), low - span), min(max(high, most), high + span)
    room = 0.05 * (high - low) or 0.5 * span
    return float(low - room), float(high + room)


def _pairs(titles: Sequence[str], fit: Fit) -> Figure:
    worst = worst_pairs(fit, PAIRS)
    down = -(-len(worst) // 3)
    size = {"height": 2.75 * down + 0.3, "down": down}
    figure, places = panels(min(3, len(worst)), **size, squeeze=False)
    places = places.flatten()
    for axis, (i, j) in zip(places, worst, strict=False):
        _scatter(axis, fit.x[:, [i, j]].numpy(), fit.y[:, [i, j]].numpy())
        axis.set_xlabel(_wrapped(titles[i], 30), fontsize=7)
        axis.set_ylabel(_wrapped(titles[j], 30), fontsize=7)
    for axis in places[len(worst) :]:
        axis.axis("off")
    handles = places[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper left", ncols=2, fontsize=8, markerscale=2)
    return figure


def _scatter(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    axis.plot(*x.T, ".", ms=4, mew=0, color=DATA, alpha=0.6, label="test rows")
    axis.plot(*y[: len(x)].T, "x", ms=3, mew=0.6, color=FLOW, alpha=0.6, label="samples")
    axis.set(xlim=_ends(x[:, 0], y[:, 0]), ylim=_ends(x[:, 1], y[:, 1]))
    axis.tick_params(labelsize=7)
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(MaxNLocator(3))
