"""Samples beside test rows, as figures: columns, pairs of columns, pictures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from pipelines.data.manifest import Manifest
from pipelines.density.figures import histograms
from pipelines.density.fit import WIDEST, Fit, Unlikely, is_image, names, worst_pairs
from pipelines.reporting.pictures import show_tiles
from pipelines.reporting.style import DATA, FLOW, LIGHT, panels, wrapped

PAIRS = 6
LABEL = 36
"""Characters of a line of a column's name."""


def samples(manifest: Manifest, fit: Fit, least: Sequence[Unlikely]) -> dict[str, Figure]:
    """Returns the figures of samples by name.

    Arguments:
        manifest: Describes the data.
        fit: Test rows and samples.
        least: The least likely test rows.
    """
    if is_image(manifest):
        return {"samples": _pictures(manifest, fit), "unlikely": _unlikely(manifest, least)}
    found = {"columns": _columns(names(manifest), fit)}
    if "pairs" in fit.apart:
        found["pairs"] = _pairs(names(manifest), fit)
    return found


def _pictures(manifest: Manifest, fit: Fit) -> Figure:
    figure, axes = panels(2, height=4.2)
    for axis, images, title in zip(axes, (fit.x, fit.y), ("test data", "samples"), strict=True):
        show_tiles(axis, images.numpy() / (manifest.levels - 1), manifest.shape)
        axis.set_title(title)
    return figure


def _unlikely(manifest: Manifest, least: Sequence[Unlikely]) -> Figure:
    images = np.stack([row.x for row in least]) / (manifest.levels - 1)
    figure, axis = panels(height=1.1)
    show_tiles(axis, images, manifest.shape, len(images))
    return figure


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
    axis.set_yticklabels([wrapped(titles[k], LABEL) for k in shown], fontsize=8)
    axis.set(xlim=(-0.01, 1.13), ylim=(0.6 - len(shown), 1.25), xticks=[])
    axis.grid(visible=False)
    axis.tick_params(length=0)
    axis.spines[["left", "bottom"]].set_visible(False)
    handles = [Patch(color=LIGHT, label="test rows"), Line2D([], [], color=FLOW, label="samples")]
    axis.legend(handles=handles, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), fontsize=8)
    return figure


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
        axis.set_xlabel(wrapped(titles[i], 30), fontsize=7)
        axis.set_ylabel(wrapped(titles[j], 30), fontsize=7)
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
