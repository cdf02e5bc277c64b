"""The figures of denoisers of laws that look like data."""

import pyarrow as pa
from matplotlib.figure import Figure

from ebflow.complexity.samplers import ladder
from pipelines.reporting.style import BASELINE, FLOW, panels
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.denoisers import LEAST, WIDEST
from pipelines.sample_complexity.law_questions import by_level, lead, learnt
from pipelines.sample_complexity.results import matrix, where

PANELS = {
    "levels_l2": ("σ L2 / √D over all levels", FLOW),
    "levels_d": ("largest σ Dᵟ / √D, δ/N", BASELINE),
    "copied": ("share of copies", FLOW),
    "excess": ("−log q above true samples', nats", FLOW),
    "tv": ("TV of components", FLOW),
    "w2": ("sliced W2", FLOW),
}
"""By column: the axis, and the colour."""

STYLES = ("-", "--", "-.", ":")
"""Of the weights of an implanted mode, the first of none."""


def against_m(config: ComplexityConfig, rows: pa.Table) -> Figure:
    """Draws errors, copies and what samples are off, against m."""
    figure, axes = panels(3, 12.6, 6.4, down=2)
    truths = where(rows, panel="truths", law=lead(config))
    root = truths["size"][0].as_py() ** 0.5
    for axis, (column, (label, colour)) in zip(axes.flat, PANELS.items(), strict=True):
        scale = root if "levels" in column else 1
        for eta, style in zip(config.laws.etas, STYLES, strict=False):
            found, m = matrix(learnt(rows, lead(config), eta), column)
            name = f"η = {eta:g}" if eta else "no mode implanted"
            axis.plot(m, found.mean(0) / scale, style, color=colour, marker=".", label=name)
            axis.plot(m, found.T / scale, style, color=colour, lw=0.3, alpha=0.5)
        unets = learnt(rows, lead(config), 0.0, "unet")
        if len(unets):
            found, m = matrix(unets, column)
            axis.plot(
                m, found.mean(0) / scale, ":", color="black", marker="s", ms=4, label="U-Net"
            )
        if column in ("excess", "tv", "w2"):
            floor = where(truths, learner="exact score", eta=config.laws.etas[0])[column]
            axis.axhline(floor.to_numpy().mean(), color="black", ls=":", lw=0.8)
        axis.set(xscale="log", xlabel="m", ylabel=label)
    axes[0, 0].legend(fontsize=7)
    return figure


def levels(config: ComplexityConfig, rows: pa.Table) -> Figure:
    """Draws both errors against the noise, at the least m and the largest."""
    figure, axes = panels(2, 8.4, 3.4)
    sigmas = ladder(WIDEST, LEAST, config.laws.levels)
    root = where(rows, panel="truths", law=lead(config))["size"][0].as_py() ** 0.5
    ends = min(config.laws.sizes), max(config.laws.sizes)
    for axis, m in zip(axes, ends, strict=True):
        for eta, style in zip(config.laws.etas, STYLES, strict=False):
            networks = learnt(rows, lead(config), eta)
            for column, colour, label in (
                ("by_level_l2", FLOW, "σ L2"),
                ("by_level_d", BASELINE, "σ Dᵟ"),
            ):
                mean = by_level(networks, column, m).mean(0) / root
                axis.plot(sigmas, mean, style, color=colour, lw=1, label=f"{label}, η = {eta:g}")
        axis.set(xscale="log", yscale="log", xlabel="σ", ylabel="error / √D", title=f"m = {m:,}")
    axis.legend(fontsize=7)
    return figure
