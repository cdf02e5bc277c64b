"""Figures of a trained flow, and one page that holds them."""

__all__ = ["TEMPLATE", "figures", "page"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ebflow.data.manifest import Manifest
from pipelines.density.likelihoods import lines
from pipelines.reporting import pages
from pipelines.reporting.pictures import is_picture, show_tiles
from pipelines.training.metrics_log import Row, curve

matplotlib.use("Agg")

FLOW, DATA, BASELINE = "#1f5fa8", "#6b6b6b", "#c2491d"
STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 130,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}
FEATURES = 4
TEMPLATE = Path(__file__).with_name("report.html.j2")

Rows = Sequence[Row]


def figures(
    rows: Rows, numbers: Mapping[str, float], manifest: Manifest, x: np.ndarray, y: np.ndarray
) -> dict[str, Figure]:
    """Returns the figures by name.

    Arguments:
        rows: What the training logged.
        numbers: What the evaluation found.
        manifest: Describes the data.
        x: Test data, with shape (N, D).
        y: Samples of the flow, with shape (N, D).
    """
    samples = _pictures if _is_picture(manifest) else _pairs
    with matplotlib.rc_context(STYLE):
        return {
            "training": _training(rows, numbers),
            "samples": samples(manifest, x, y),
            "diagnosis": _diagnosis(rows),
        }


def page(
    numbers: Mapping[str, float],
    manifest: Manifest,
    config: str,
    verdict: str,
    images: Mapping[str, Path],
    warnings: Sequence[str] = (),
) -> str:
    """Returns a self-contained HTML page.

    Arguments:
        numbers: Metrics of training and evaluation.
        manifest: Describes the data.
        config: The configuration, as YAML.
        verdict: Why the training ended.
        images: PNG files by name of the figure.
        warnings: What a reader should not miss, first on the page.
    """
    return pages.render(
        TEMPLATE,
        images,
        numbers=numbers,
        lines=lines(numbers),
        manifest=manifest,
        config=config,
        verdict=verdict,
        warnings=warnings,
    )


def _training(rows: Rows, numbers: Mapping[str, float]) -> Figure:
    validations = curve(rows, "validate")
    nll = [row["metrics"]["val/nll"] for row in validations]
    fitted = [row["metrics"]["train/nll"] for row in validations]
    steps = [row["step"] for row in validations]
    seconds = [row["metrics"]["time/train_s"] for row in validations]
    baselines = lines(numbers)[1:]
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, x, label in zip(axes, (steps, seconds), ("step", "training time (s)"), strict=True):
        axis.plot(x, nll, color=FLOW, marker=".", label="flow, validation rows")
        axis.plot(x, fitted, color=FLOW, ls=":", lw=1, label="flow, 250 random training rows")
        for line, style in zip(baselines, ("--", ":"), strict=True):
            axis.axhline(line.val_nll, color=BASELINE, ls=style, label=line.name)
        axis.set_xlabel(label)
    axes[0].set_ylabel("NLL of the averaged weights (nats)")
    axes[0].set_ylim(*_limits([fitted[-1], *nll], [line.val_nll for line in baselines]))
    axes[0].legend()
    return figure


def _limits(nll: Sequence[float], baselines: Sequence[float]) -> tuple[float, float]:
    """Returns limits that show the end of training and the baselines; a bad start may leave."""
    low, high = min(*nll, *baselines), max(nll[-1], *baselines)
    return low - 0.1 * (high - low + 1), high + 0.5 * (high - low + 1)


def _diagnosis(rows: Rows) -> Figure:
    losses, validations = curve(rows, "log"), curve(rows, "validate")
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    _line(left, losses, "train/loss", color=FLOW)
    left.set_ylabel("training loss")
    _line(right, validations, "latent/var_min", color=FLOW, label="smallest variance")
    _line(right, validations, "latent/var_max", color=BASELINE, label="largest variance")
    _line(right, validations, "latent/mean_norm2", color=DATA, ls=":", label="squared mean")
    right.axhline(1, color="black", lw=0.5)
    right.set_yscale("symlog", linthresh=0.1)
    right.set_ylim(bottom=-0.1)
    right.set_ylabel("latent of validation data")
    right.legend()
    for axis in (left, right):
        axis.set_xlabel("step")
    return figure


def _line(axis: Axes, rows: Rows, name: str, **style: Any) -> None:  # noqa: ANN401
    steps = [row["step"] for row in rows]
    axis.plot(steps, [row["metrics"][name] for row in rows], **style)


def _pictures(manifest: Manifest, x: np.ndarray, y: np.ndarray) -> Figure:
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    for axis, images, title in zip(
        figure.subplots(1, 2), (x, y), ("test data", "samples"), strict=True
    ):
        show_tiles(axis, images / (manifest.levels - 1), manifest.shape)
        axis.set_title(title)
    return figure


def _is_picture(manifest: Manifest) -> bool:
    return manifest.levels is not None and is_picture(manifest.shape)


def _pairs(manifest: Manifest, x: np.ndarray, y: np.ndarray) -> Figure:
    count = min(FEATURES, x.shape[1])
    columns = manifest.columns
    names = columns.titles if columns else [f"x[{i}]" for i in range(x.shape[1])]
    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.subplots(count, count, squeeze=False)
    for i, j in np.ndindex(count, count):
        draw = _histogram if i == j else _scatter
        draw(axes[i, j], x[:, [j, i]], y[:, [j, i]])
        axes[i, j].tick_params(labelsize=6)
        axes[i, j].set_xlabel(names[j] if i == count - 1 else "")
        axes[i, j].set_ylabel(names[i] if j == 0 else "")
    figure.suptitle("test data (grey) and samples (blue)")
    return figure


def _histogram(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    bins = np.histogram_bin_edges(x[:, 0], 30)
    axis.hist(x[:, 0], bins, density=True, color=DATA, alpha=0.6)
    axis.hist(y[:, 0], bins, density=True, color=FLOW, histtype="step")


def _scatter(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    axis.scatter(*x.T, s=4, color=DATA, alpha=0.6, lw=0)
    axis.scatter(*y.T, s=4, color=FLOW, alpha=0.6, lw=0)
    margin = 0.1 * np.ptp(x, axis=0) + 1e-12
    axis.set_xlim(x[:, 0].min() - margin[0], x[:, 0].max() + margin[0])
    axis.set_ylim(x[:, 1].min() - margin[1], x[:, 1].max() + margin[1])
