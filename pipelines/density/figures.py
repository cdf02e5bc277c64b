"""Figures of the report: curves of training, likelihoods, samples beside test rows."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipelines.data.manifest import Manifest
from pipelines.density.fit import Fit, Unlikely, is_image, names
from pipelines.density.likelihoods import lines
from pipelines.metrics_log import Row, curve
from pipelines.reporting.style import BASELINE, DATA, FLOW, LIGHT, panels, show_tiles

BINS = 40

MOST, ACROSS = 32, 4
"""Columns that are shown, and histograms side by side."""

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
    baselines = {line.name: line.value("nll", "validation") for line in lines(numbers)[1:]}
    figure, axes = panels(2, height=3.3, sharey=True)
    for axis, x, label in zip(axes, (steps, seconds), ("step", "training time (s)"), strict=True):
        axis.plot(x, nll, color=FLOW, marker=".", label="flow, validation rows")
        axis.plot(x, fitted, color=FLOW, ls=":", label="flow, 250 random training rows")
        for (name, value), style in zip(baselines.items(), ("--", "-."), strict=True):
            axis.axhline(value, color=BASELINE, ls=style, label=name)
        axis.set_xlabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(5))
    axes[0].set_ylabel("NLL of the averaged weights (nats)")
    axes[0].set_ylim(*_limits([fitted[-1], *nll], baselines.values()))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return figure


def _limits(nll: Sequence[float], baselines: Iterable[float]) -> tuple[float, float]:
    """Returns limits that show the end of training and the baselines; a bad start may leave."""
    low, high = min(*nll, *baselines), max(nll[-1], *baselines)
    return low - 0.1 * (high - low + 1), high + 0.5 * (high - low + 1)


def _histogram(axis: Axes, test: np.ndarray, train: np.ndarray) -> None:
    """Draws log-densities; those below the 0.2 % of the test rows are in the first bin."""
    ends = np.quantile(test, 0.002), max(test.max(), train.max())
    _compare(axis, test, train, *ends, names=("test rows", "training rows"))
    axis.set(xlabel="log-density (nats)", ylabel="share of rows")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.legend(loc="upper left")


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


def samples(manifest: Manifest, fit: Fit, least: Sequence[Unlikely]) -> dict[str, Figure]:
    """Returns the figures of samples by name.

    Arguments:
        manifest: Describes the data.
        fit: Test rows and samples.
        least: The least likely test rows.
    """
    if not is_image(manifest):
        return {"columns": _columns(names(manifest), fit)}
    white = manifest.levels - 1
    figure, axes = panels(2, height=4.2)
    for axis, images, title in zip(axes, (fit.x, fit.y), ("test data", "samples"), strict=True):
        show_tiles(axis, images.numpy() / white, manifest.shape)
        axis.set_title(title)
    unlikely, axis = panels(height=1.1)
    show_tiles(axis, np.stack([row.x for row in least]) / white, manifest.shape, len(least))
    return {"samples": figure, "unlikely": unlikely}


def _columns(titles: Sequence[str], fit: Fit) -> Figure:
    """Returns histograms of the columns, those that differ most if there are many."""
    distances = fit.apart["columns"].values
    shown = distances.argsort(descending=True, stable=True)[:MOST].sort().values.tolist()
    across = min(ACROSS, len(shown))
    down = math.ceil(len(shown) / across)
    size = {"height": 1.7 * down + 0.4, "down": down}
    figure, places = panels(across, **size, squeeze=False)
    for axis, k in zip(places.flatten(), shown, strict=False):
        x, y = fit.x[:, k].double().numpy(), fit.y[:, k].double().numpy()
        low, high = np.quantile(x, (0.005, 0.995))
        _compare(axis, x, y, low, high)
        star = " *" if distances[k] > fit.apart["columns"].bound else ""
        name = textwrap.fill(titles[k], 28, max_lines=2, placeholder="…")
        axis.set_title(f"{name}\n{distances[k]:.2f}{star}", fontsize=7)
        axis.tick_params(labelsize=6, labelleft=False)
        axis.xaxis.set_major_locator(MaxNLocator(3))
    for axis in places.flatten()[len(shown) :]:
        axis.axis("off")
    handles = places[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper left", ncols=2, fontsize=8)
    return figure


def _compare(
    axis: Axes,
    x: np.ndarray,
    y: np.ndarray,
    low: float,
    high: float,
    names: Sequence[str] = ("test rows", "samples"),
) -> None:
    """Draws the shares of two samples; the outer bins have all beyond them."""
    room = 0.05 * (high - low) or max(1.0, abs(low))
    edges = np.linspace(low - room, high + room, min(BINS, 4 + math.isqrt(len(x))) + 1)
    of_x, of_y = (np.histogram(v.clip(edges[0], edges[-1]), edges)[0] / len(v) for v in (x, y))
    axis.stairs(of_x, edges, fill=True, color=LIGHT, label=names[0])
    axis.stairs(of_y, edges, color=FLOW, lw=1.2, label=names[1])
