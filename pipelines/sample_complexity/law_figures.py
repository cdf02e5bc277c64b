"""The figures of denoisers of laws that look like data."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ebflow.complexity.samplers import ladder
from pipelines.reporting.style import BASELINE, FLOW, panels
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.denoisers import LEAST, MISSING, WIDEST
from pipelines.sample_complexity.law_questions import (
    PREDICTORS,
    at_size,
    family,
    lead,
    learnt,
    rise,
    trained,
)
from pipelines.sample_complexity.results import matrix, where

PANELS = {
    "levels_l2": ("σ L2 / √D over all levels", FLOW),
    "levels_q": ("σ Dᵟ / √D over all levels", BASELINE),
    "copied": ("share of copies", FLOW),
    "excess": ("−log q above true samples', nats", FLOW),
    "tv": ("TV of components", FLOW),
    "w2": ("sliced W2", FLOW),
}
"""By column: the axis, and the colour."""

STYLES = ("-", "-.", "--", ":")
"""Of the weights of an implanted mode, the first of none."""

SHADES = ("#9ecae1", "#6baed6", "#3182bd", "#08519c", "#08306b")
"""Of m, the least first."""


def against_m(config: ComplexityConfig, rows: pa.Table) -> Figure:
    """Draws errors, copies and what samples are off, against m, at the end of training."""
    figure, axes = panels(3, 12.6, 6.4, down=2)
    nets = [
        (f"η = {eta:g}" if eta else "no mode implanted", learnt(rows, lead(config), eta), style)
        for eta, style in zip(config.laws.etas, STYLES, strict=False)
    ]
    unets = learnt(rows, lead(config), min(config.laws.etas), "unet")
    for axis, (column, (label, colour)) in zip(axes.flat, PANELS.items(), strict=True):
        scale = _scale(config, rows, column)
        for name, some, style in nets:
            found, m = matrix(trained(some), column)
            axis.plot(m, found.mean(0) / scale, style, color=colour, marker=".", label=name)
            axis.plot(m, found.T / scale, style, color=colour, lw=0.3, alpha=0.5)
        if len(unets):
            found, m = matrix(trained(unets), column)
            axis.plot(m, found.mean(0) / scale, ":", color="black", marker="s", ms=4,
                      label="U-Net")  # fmt: skip
        _floor(axis, config, rows, column, min(config.laws.etas))
        axis.set(xscale="log", xlabel="m", ylabel=label)
    axes[0, 0].legend(fontsize=7)
    return figure


def _scale(config: ComplexityConfig, rows: pa.Table, column: str) -> float:
    size = where(rows, panel="truths", law=lead(config))["size"][0].as_py()
    return size**0.5 if "level" in column else 1.0


def _floor(axis: Axes, config: ComplexityConfig, rows: pa.Table, column: str, eta: float) -> None:
    """Draws what samples of the exact score are off."""
    if column in ("excess", "tv", "w2"):
        exact = where(rows, panel="truths", learner="exact score", law=lead(config))
        floor = where(exact, eta=eta)[column].to_numpy().mean()
        axis.axhline(floor, color="black", ls=":", lw=0.8)


def dose(config: ComplexityConfig, rows: pa.Table) -> Figure:
    """Draws the rise of mean square over the quantile, level by level, and its prediction."""
    etas = [eta for eta in config.laws.etas if eta]
    figure, axes = panels(max(1, len(etas)), 12.6, 3.4, squeeze=False, sharey=True)
    plain = learnt(rows, lead(config), 0.0)
    sigmas = ladder(WIDEST, LEAST, config.laws.levels)
    for axis, eta in zip(axes[0], etas if len(plain) else (), strict=False):
        rare = learnt(rows, lead(config), eta)
        for m, colour in zip(config.laws.sizes, SHADES, strict=False):
            found = rise(plain, rare, m)
            axis.plot(sigmas, found.mean(0), color=colour, marker=".", label=f"m = {m:,}")
        missing = where(rows, panel="truths", learner=MISSING, law=lead(config), eta=eta)
        cost = np.array(missing["by_level_l2"].to_pylist()).mean(0)
        bulk = at_size(plain, "by_level_l2", config.laws.sizes[0]).mean(0)
        axis.plot(sigmas, 0.5 * np.log1p((cost / bulk) ** 2), "k:", lw=1,
                  label=f"mode missed, m = {config.laws.sizes[0]:,}")  # fmt: skip
        axis.set(xscale="log", xlabel="σ", ylabel="rise, as a logarithm", title=f"η = {eta:g}")
        axis.axhline(0, color="black", lw=0.5)
    axes[0, 0].legend(fontsize=7)
    return figure


def families(config: ComplexityConfig, rows: pa.Table) -> Figure:
    """Draws what samples are off against both errors, of every m and length of training."""
    figure, axes = panels(4, 14.0, 6.2, down=2)
    ends = (min(config.laws.etas), max(config.laws.etas))
    for line, eta in zip(axes, ends, strict=True):
        some = learnt(rows, lead(config), eta)
        places = [(out, error) for out in ("w2", "tv") for error in ("levels_l2", "levels_q")]
        for axis, (outcome, error) in zip(line, places, strict=True):
            _family(axis, some, error, outcome, _scale(config, rows, error))
            _floor(axis, config, rows, outcome, eta)
            axis.set(xlabel=f"{PREDICTORS[error]} over levels / √D",
                     ylabel=PANELS[outcome][0], title=f"η = {eta:g}")  # fmt: skip
    axes[0, 0].legend(fontsize=7)
    return figure


def _family(axis: Axes, rows: pa.Table, error: str, outcome: str, scale: float) -> None:
    sizes = sorted(set(rows["m"].to_pylist()))
    for m, colour in zip(sizes, SHADES, strict=False):
        x, y = (family(where(rows, m=m), name) for name in (error, outcome))
        for index, area in zip(range(x.shape[1]), _areas(x.shape[1]), strict=True):
            last = index == x.shape[1] - 1
            axis.scatter(x[:, index] / scale, y[:, index], s=area, color=colour, alpha=0.7,
                         label=f"m = {m:,}" if last else None)  # fmt: skip


def _areas(count: int) -> Sequence[float]:
    """Returns the areas of points, larger after longer training."""
    return [6.0 + 12.0 * k for k in range(count)]


def memory(config: ComplexityConfig, rows: pa.Table) -> Figure:
    """Draws what grows and what falls while networks of the fewest samples are trained."""
    figure, axes = panels(4, 14.0, 3.2)
    some = learnt(rows, lead(config), min(config.laws.etas))
    columns = ("levels_l2", "copied", "excess", "w2")
    for axis, column in zip(axes, columns, strict=True):
        scale = _scale(config, rows, column)
        for m, colour in zip(config.laws.sizes, SHADES, strict=False):
            found = family(where(some, m=m), column) / scale
            axis.plot(config.laws.lengths, found.mean(0), color=colour, marker=".",
                      label=f"m = {m:,}")  # fmt: skip
            axis.plot(config.laws.lengths, found.T, color=colour, lw=0.3, alpha=0.5)
        _floor(axis, config, rows, column, min(config.laws.etas))
        axis.set(xscale="log", xlabel="steps of training", ylabel=PANELS[column][0])
        axis.set_xticks(config.laws.lengths, [f"{steps:,}" for steps in config.laws.lengths])
        axis.minorticks_off()
    axes[0].legend(fontsize=7)
    return figure
