"""Plots of the report: curves of training, likelihoods, samples beside test rows."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ebflow.tables.column import Column
from pipelines.data.manifest import Manifest
from pipelines.density.fit import Fit
from pipelines.density.likelihoods import lines
from pipelines.metrics_log import Row, curve
from pipelines.reporting.result import Plot
from pipelines.reporting.style import BASELINE, DATA, FLOW, LIGHT, panels, show_tiles

BINS = 40

MOST, ACROSS = 32, 4
"""Columns that are shown, and histograms side by side."""

NAMED = 4
"""Levels of a category that a histogram names at most."""

TRAINING = (
    "Left: exact NLL of the averaged weights. Right: the latents of a perfect model have mean 0 "
    "and variance 1 in every direction. Score matching alone does not notice a direction that "
    "diverges; the likelihood does."
)
LIKELIHOOD = (
    "Log-densities of the test rows, and of training rows, which are higher if the flow overfits; "
    "the first bin has the least likely rows."
)
COLUMNS = (
    "The columns that differ most, at most 32, each over 99 % of its test rows; the outermost "
    "bins have all values beyond. The number is the column's shape, 1 if both are alike."
)


def plots(
    manifest: Manifest,
    rows: Sequence[Row],
    numbers: Mapping[str, float],
    fit: Fit,
    log_probs: Mapping[str, np.ndarray],
) -> list[Plot]:
    """Returns the plots of the report, from the metrics over steps and of the evaluation.

    ``log_probs`` has the log-densities of ``train`` and ``test`` rows in nats.
    """
    return [
        _training(curve(rows, "validate"), numbers),
        _likelihood(log_probs),
        _images(manifest, fit) if fit.is_image else _columns(manifest, fit),
    ]


def _training(rows: Sequence[Row], numbers: Mapping[str, float]) -> Plot:
    steps = [row["step"] for row in rows]
    curves = pd.DataFrame([row["metrics"] for row in rows], steps)
    nll, trained = curves["val/nll"], curves["train/nll"]
    baselines = {line.name: line.value("nll", "validation") for line in lines(numbers)[1:]}
    figure, (left, right) = panels(2, height=3.3)
    left.plot(nll, color=FLOW, marker=".", label="flow, validation rows")
    left.plot(trained, color=FLOW, ls=":", label="flow, 250 training rows")
    for (name, value), style in zip(baselines.items(), ("--", "-."), strict=True):
        left.axhline(value, color=BASELINE, ls=style, label=name)
    limits = _limits([trained.iloc[-1], *nll], baselines.values())
    left.set(ylabel="NLL (nats)", ylim=limits)
    right.plot(curves["latent/var_min"], color=FLOW, label="smallest variance")
    right.plot(curves["latent/var_max"], color=BASELINE, ls="--", label="largest variance")
    right.plot(curves["latent/mean_norm2"], color=DATA, ls=":", label="squared mean")
    right.axhline(1, color="black", lw=0.5)
    right.set_yscale("symlog", linthresh=0.1)
    right.set(ylabel="latent of validation rows", ylim=(-0.1, None))
    for axis, side in ((left, "left"), (right, "right")):
        axis.set_xlabel("step")
        axis.xaxis.set_major_locator(MaxNLocator(5))
        figure.legend(*axis.get_legend_handles_labels(), loc=f"outside upper {side}")
    return Plot("training", figure, TRAINING, "Training")


def _limits(nll: Sequence[float], baselines: Iterable[float]) -> tuple[float, float]:
    """Returns limits that show the end of training and the baselines; a bad start may leave."""
    low, high = min(*nll, *baselines), max(nll[-1], *baselines)
    return low - 0.1 * (high - low + 1), high + 0.5 * (high - low + 1)


def _likelihood(log_probs: Mapping[str, np.ndarray]) -> Plot:
    """Returns histograms of log-densities."""
    figure, axis = panels(height=3)
    test, train = log_probs["test"], log_probs["train"]
    ends = np.quantile(test, 0.002), max(test.max(), train.max())
    _compare(axis, test, train, *ends, labels=("test rows", "training rows"))
    axis.set(xlabel="log-density (nats)", ylabel="share of rows")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.legend(loc="upper left")
    return Plot("likelihood", figure, LIKELIHOOD)


def _images(manifest: Manifest, fit: Fit) -> Plot:
    figure, axes = panels(2, height=4.2)
    for axis, images, title in zip(axes, (fit.x, fit.y), ("test data", "samples"), strict=True):
        show_tiles(axis, images.numpy() / (manifest.levels - 1), manifest.shape)
        axis.set_title(title)
    return Plot("samples", figure, "Exact samples, by the inverse of the flow.", "Samples")


def _columns(manifest: Manifest, fit: Fit) -> Plot:
    """Returns histograms of the columns, those that differ most if there are many."""
    shown = sorted(np.argsort(fit.shapes, kind="stable")[:MOST].tolist())
    across = min(ACROSS, len(shown))
    down = math.ceil(len(shown) / across)
    figure, places = panels(across, height=1.7 * down + 0.4, down=down, squeeze=False)
    for axis, k in zip(places.flatten(), shown, strict=False):
        x, y = fit.x[:, k].double().numpy(), fit.y[:, k].double().numpy()
        low, high = np.quantile(x, (0.005, 0.995))
        _compare(axis, x, y, low, high)
        name = textwrap.fill(fit.names[k], 28, max_lines=2, placeholder="…")
        axis.set_title(f"{name}\n{fit.shapes[k]:.2f}", fontsize=7)
        axis.tick_params(labelsize=6, labelleft=False)
        axis.xaxis.set_major_locator(MaxNLocator(3))
        if manifest.columns is not None:
            _name_levels(axis, manifest.columns.modelled[k])
    for axis in places.flatten()[len(shown) :]:
        axis.axis("off")
    handles = places[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper left", ncols=2, fontsize=8)
    return Plot("columns", figure, COLUMNS, "Samples")


def _name_levels(axis: Axes, column: Column) -> None:
    """Writes the levels of a category in place of their codes, unless there are many."""
    if 0 < column.size <= NAMED:
        levels = [name.partition("=")[2] for name in column.level_names]
        short = [textwrap.shorten(level, 10, placeholder="…") or level[:10] for level in levels]
        axis.set_xticks(range(column.size), short)


def _compare(
    axis: Axes,
    x: np.ndarray,
    y: np.ndarray,
    low: float,
    high: float,
    labels: Sequence[str] = ("test rows", "samples"),
) -> None:
    """Draws the shares of two samples; the outer bins have all beyond them."""
    room = 0.05 * (high - low) or max(1.0, abs(low))
    edges = np.linspace(low - room, high + room, min(BINS, 4 + math.isqrt(len(x))) + 1)
    of_x, of_y = (np.histogram(v.clip(edges[0], edges[-1]), edges)[0] / len(v) for v in (x, y))
    axis.stairs(of_x, edges, fill=True, color=LIGHT, label=labels[0])
    axis.stairs(of_y, edges, color=FLOW, lw=1.2, label=labels[1])
