"""The figures of the study of sample complexity, each with its caption."""

from collections.abc import Sequence
from itertools import cycle, product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ebflow.complexity.samplers import ladder
from pipelines.reporting.style import BASELINE, FLOW, Captioned, panels
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.denoiser_questions import PREDICTORS, at_size, lead, learnt, rise
from pipelines.sample_complexity.denoisers import LEAST, MISSING, WIDEST
from pipelines.sample_complexity.exponents import FRESH, NETWORKS, Answer
from pipelines.sample_complexity.rows import family, matrix, trained, where

GROWN = {
    "scaling": [("R/σ", learner) for learner in ("finite", *NETWORKS)],
    "dimensions": [("d", "finite"), ("d", FRESH), ("log |H|", "finite")],
    "varied": [(against, FRESH) for against in ("1/ε", "1/δ", "η", "width", "depth")],
}
"""By figure of m*: what each panel is against, and its learner."""

AXES = {"d": "dimension d", "η": "η over the worst one"}
"""Of these panels, where the axis has another name than what it is of."""

ERRORS = {"m*_L2": ("mean square", "-", BASELINE), "m*_D": ("quantile", "--", FLOW)}

MEASURED = {
    "levels_l2": "σ L2 / √D over all levels",
    "levels_q": "σ Dᵟ / √D over all levels",
    "copied": "share of copies",
    "excess": "−log q above true samples', nats",
    "tv": "TV of components",
    "w2": "sliced W2",
}
"""By column of denoisers: the axis."""

SAMPLED = ("excess", "tv", "w2")
"""Those that samples of the exact score have too."""

STYLES = ("-", "-.", "--", ":")
SHADES = ("#9ecae1", "#6baed6", "#3182bd", "#08519c", "#08306b")
"""Of m, the least first."""


CAPTIONS = {
    "scaling": "Samples from which on the error stays below ε, with bootstrap intervals, and "
    "fitted powers with their exponents.",
    "dimensions": "The same against the dimension, and against the size of a finite class.",
    "varied": "Networks on the line, at one R/σ: samples from which on the error stays below ε, "
    "against ε, the mass δ beyond the quantile, the far mode's weight η over its worst value, and "
    "the networks' width and depth.",
    "sampling": "Networks for all noises, after three lengths of training, and the reverse SDE: "
    "total variation and W2 of samples against the score's error in mean square (left) and at the "
    "quantile (right), over all levels of the sampler. Training sets come as they are drawn: red, "
    "those without a far sample. Lines: the exact score by the same sampler, and true samples.",
    "data-like": "Denoisers of a law that looks like data, at the end of training, with an "
    "implanted mode and without: the error over all levels in mean square and at the quantile, "
    "the share of samples that are copies of training ones, and what samples are off; means over "
    "training sets. Lines across: the exact score by the same sampler.",
    "dose": "By how much an implanted mode raises mean square over the quantile, against the "
    "noise, by its weight η and m; means over training sets. Dotted: the rise of mean square if "
    "the mode is missed, from the exact denoiser of the law without it, and the quantile does not "
    "rise.",
    "families": "What samples are off against both errors, of all networks: darker, those of more "
    "samples; larger, those that were trained for longer. Above without a mode, below with the "
    "heaviest. Lines across: the exact score by the same sampler.",
    "memory": "While networks are trained: the error in mean square, copies of training samples, "
    "and what samples are off, without an implanted mode.",
}


def figures(
    config: ComplexityConfig, answers: Sequence[Answer], rows: pd.DataFrame
) -> dict[str, Captioned]:
    """Returns the figures by name."""
    made = {name: _grown(name, answers) for name in GROWN}
    made["sampling"] = _sampling(rows)
    for name, draw in OF_LAWS.items():
        made[name] = draw(config, rows)
    return {name: (made[name], caption) for name, caption in CAPTIONS.items()}


def _grown(figure_name: str, answers: Sequence[Answer]) -> Figure:
    """Draws m* with its intervals, and the fitted powers."""
    places = GROWN[figure_name]
    down = -(-len(places) // 3)
    figure, axes = panels(3, 12.6, 3.2 * down, down=down, squeeze=False)
    for axis, (against, learner) in zip(axes.flat, places, strict=False):
        name = AXES.get(against, against)
        axis.set(xscale="log", yscale="log", xlabel=name, ylabel="m*", title=learner)
        for one in answers:
            if (one.question.against, one.question.learner) == (against, learner):
                _growth(axis, one)
        axis.minorticks_off()
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    for axis in axes.flat[len(places) :]:
        axis.axis("off")
    return figure


def _growth(axis: Axes, one: Answer) -> None:
    name, style, colour = ERRORS[one.question.quantity]
    at, m = one.points["at"], one.points["value"]
    reach = np.abs(one.points[["low", "high"]].sub(m, axis=0)).to_numpy().T
    axis.errorbar(at, m, reach, fmt="o", ms=4, color=colour, capsize=2, lw=1)
    axis.set_xticks(one.values, [f"{round(value, 1):g}" for value in one.values])
    if one.slope:
        slope = one.slope.value
        line = np.exp(np.log(m).mean() + slope * (np.log(at) - np.log(at).mean()))
        axis.plot(at, line, style, color=colour, lw=1.2, label=f"{name}, exponent: {slope:.2f}")


def _sampling(rows: pd.DataFrame) -> Figure:
    found = where(rows, panel="samplers")
    nets, floors = where(found, learner="networks"), ("exact score", "true samples")
    columns = {"levels_l2": "σ L2 over all levels", "levels_q": "σ Dᵟ over all levels"}
    outcomes = {"tv": "total variation", "w2": "W2"}
    figure, grid = panels(2, 8.4, 7.0, down=2)
    for axis, (outcome, column) in zip(grid.flat, product(outcomes, columns), strict=True):
        for seen, colour in (("far samples seen", FLOW), ("none seen; size: m", BASELINE)):
            some = nets[(nets["n_far"] > 0) == (colour == FLOW)]
            sizes = 12 + 8 * np.log2(some["m"].to_numpy(float) / nets["m"].min())
            axis.scatter(some[column], some[outcome], s=sizes, c=colour, alpha=0.7, label=seen)
        for learner, style in zip(floors, ("--", ":"), strict=True):
            floor = where(found, learner=learner)[outcome].mean()
            axis.axhline(floor, color="black", ls=style, lw=0.8, label=learner)
        axis.set(xscale="log", yscale="log", xlabel=columns[column], ylabel=outcomes[outcome])
        _plain(axis.xaxis)
        _plain(axis.yaxis)
    grid[0, 0].legend(fontsize=7)
    return figure


def _plain(side: Axis) -> None:
    """Labels a logarithmic axis of few decades by 1, 2, 5, … in full."""
    side.set_major_locator(LogLocator(subs=(1, 2, 5)))
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    side.set_minor_formatter(NullFormatter())


def _against_m(config: ComplexityConfig, rows: pd.DataFrame) -> Figure:
    figure, axes = panels(3, 12.6, 6.4, down=2)
    etas, law = config.laws.etas, lead(config)
    nets = {f"η = {eta:g}" if eta else "no mode": learnt(rows, law, eta) for eta in etas}
    nets["U-Net"] = learnt(rows, law, min(etas), "unet")
    for axis, (column, name) in zip(axes.flat, MEASURED.items(), strict=True):
        for (label, some), style in zip(nets.items(), cycle(STYLES), strict=False):
            if len(some):
                found, m = matrix(trained(some), column)
                colour = "black" if label == "U-Net" else FLOW
                _spread(axis, m, _scaled(some, column, found), label, ls=style, color=colour)
        _floor(axis, config, rows, column, min(etas))
        axis.set(xscale="log", xlabel="m", ylabel=name)
    axes[0, 0].legend(fontsize=7)
    return figure


def _spread(axis: Axes, x: Sequence[int], found: np.ndarray, label: str, **look: str) -> None:
    """Draws the mean over training sets, and each of them."""
    axis.plot(x, found.mean(0), marker=".", label=label, **look)
    axis.plot(x, found.T, lw=0.3, alpha=0.5, **look)


def _scaled(rows: pd.DataFrame, column: str, found: np.ndarray) -> np.ndarray:
    """Returns errors over √D, and all else as it is."""
    return found / rows["size"].iloc[0] ** 0.5 if "level" in column else found


def _floor(
    axis: Axes, config: ComplexityConfig, rows: pd.DataFrame, column: str, eta: float
) -> None:
    """Draws what samples of the exact score are off."""
    if column in SAMPLED:
        exact = where(rows, panel="truths", learner="exact score", law=lead(config), eta=eta)
        axis.axhline(exact[column].mean(), color="black", ls=":", lw=0.8)


def _dose(config: ComplexityConfig, rows: pd.DataFrame) -> Figure:
    etas, law, sizes = [eta for eta in config.laws.etas if eta], lead(config), config.laws.sizes
    figure, axes = panels(max(1, len(etas)), 12.6, 3.4, squeeze=False, sharey=True)
    plain, sigmas = learnt(rows, law, 0.0), ladder(WIDEST, LEAST, config.laws.levels)
    for axis, eta in zip(axes[0], etas if len(plain) else (), strict=False):
        rare = learnt(rows, law, eta)
        for m, colour in zip(sizes, SHADES, strict=False):
            found = rise(plain, rare, m).mean(0)
            axis.plot(sigmas, found, color=colour, marker=".", label=f"m = {m:,}")
        missing = where(rows, panel="truths", learner=MISSING, law=law, eta=eta)
        cost = np.array(missing["by_level_l2"].tolist()).mean(0)
        bulk = at_size(plain, "by_level_l2", sizes[0]).mean(0)
        axis.plot(sigmas, 0.5 * np.log1p((cost / bulk) ** 2), "k:", lw=1,
                  label=f"mode missed, m = {sizes[0]:,}")  # fmt: skip
        axis.set(xscale="log", xlabel="σ", ylabel="rise, as a logarithm", title=f"η = {eta:g}")
        axis.axhline(0, color="black", lw=0.5)
    axes[0, 0].legend(fontsize=7)
    return figure


def _families(config: ComplexityConfig, rows: pd.DataFrame) -> Figure:
    figure, axes = panels(4, 14.0, 6.2, down=2)
    ends = (min(config.laws.etas), max(config.laws.etas))
    places = product(ends, ("w2", "tv"), ("levels_l2", "levels_q"))
    for axis, (eta, outcome, error) in zip(axes.flat, places, strict=True):
        some = learnt(rows, lead(config), eta)
        for (m, nets), colour in zip(some.groupby("m"), SHADES, strict=False):
            x, y = _scaled(nets, error, family(nets, error)), family(nets, outcome)
            areas = np.broadcast_to(6.0 + 12.0 * np.arange(x.shape[1]), x.shape)
            axis.scatter(x, y, s=areas, color=colour, alpha=0.7, label=f"m = {m:,}")
        _floor(axis, config, rows, outcome, eta)
        axis.set(xlabel=f"{PREDICTORS[error]} over levels / √D", ylabel=MEASURED[outcome],
                 title=f"η = {eta:g}")  # fmt: skip
    axes[0, 0].legend(fontsize=7)
    return figure


def _memory(config: ComplexityConfig, rows: pd.DataFrame) -> Figure:
    figure, axes = panels(4, 14.0, 3.2)
    eta, lengths = min(config.laws.etas), config.laws.lengths
    some = learnt(rows, lead(config), eta)
    for axis, column in zip(axes, ("levels_l2", "copied", "excess", "w2"), strict=True):
        for (m, nets), colour in zip(some.groupby("m"), SHADES, strict=False):
            found = _scaled(nets, column, family(nets, column))
            _spread(axis, lengths, found, f"m = {m:,}", color=colour)
        _floor(axis, config, rows, column, eta)
        axis.set(xscale="log", xlabel="steps of training", ylabel=MEASURED[column])
        axis.set_xticks(lengths, [f"{steps:,}" for steps in lengths])
        axis.minorticks_off()
    axes[0].legend(fontsize=7)
    return figure


OF_LAWS = {"data-like": _against_m, "dose": _dose, "families": _families, "memory": _memory}
"""Figures of laws that look like data, by name."""
