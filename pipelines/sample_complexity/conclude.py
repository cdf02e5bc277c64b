"""From the rows of all cells to the result: exponents, claims, figures and tables."""

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.reporting.result import Result, Table, plots, plus_minus
from pipelines.reporting.style import BASELINE, FLOW, Captioned, panels
from pipelines.sample_complexity.claims import conclusion, learned, rise
from pipelines.sample_complexity.config import INTRO, TITLE, ComplexityConfig
from pipelines.sample_complexity.data_like import DELTA, LEAST, WIDEST, ladder
from pipelines.sample_complexity.exponents import FINITE, FRESH, NETWORKS, Exponent, exponents
from pipelines.sample_complexity.flows import draw_flows
from pipelines.sample_complexity.images import draw_images
from pipelines.sample_complexity.learned import draw_learned
from pipelines.sample_complexity.minimizer import draw_minimizers
from pipelines.sample_complexity.random_classes import CLASS
from pipelines.sample_complexity.rows import family, read, trained, where
from pipelines.sample_complexity.sampling import draw_sampling, draw_steps
from pipelines.sample_complexity.two_points import draw_two_points
from pipelines.tracking.run import StageRun

KEYS = {"eta": "η", "learner": "learner", "m": "m", "step": "steps"}
ERRORS = {
    "sigma_l2": "σ L2",
    f"sigma_d_{DELTA:g}": "σ Dᵟ",
    "levels_l2": "σ L2, levels",
    "levels_q": "σ Dᵟ, levels",
    "levels_d": "largest σ Dᵟ, δ/N",
}


def conclude(config: ComplexityConfig, cells: Sequence[Path], *, run: StageRun) -> None:
    """Writes ``results.parquet``, with the rows of all cells, and the result."""
    rows = read(cells)
    rows.to_parquet(run.output / "results.parquet")
    slopes, of_images = exponents(config, rows), where(rows, panel="truths")
    Result(
        title=TITLE,
        intro=INTRO,
        conclusion=conclusion(config, slopes, rows),
        sections=[
            *plots(figures(config, slopes, rows)),
            images(of_images),
            Table(
                "Exponents",
                ("learner", "quantity", "against", "exponent", "m* at each point"),
                list(map(_exponent, slopes)),
                "If the error does not cross ε on the grid of m, there is no point.",
            ),
        ],
        metrics={"study/cells": len(cells)},
        values={"exponents": [one.summary for one in slopes], "seeds": {"study": config.seed}},
    ).save(config, run)


def images(rows: pd.DataFrame) -> Table:
    """Returns the means over training sets."""
    columns = {"n_far": "samples of the mode", **ERRORS}
    errors = rows[[*ERRORS]].div(rows["size"] ** 0.5, axis=0)
    scaled = rows.drop(columns=[*ERRORS]).join(errors)
    means = scaled.groupby([*KEYS], dropna=False)[[*columns]].mean().reset_index()
    return Table(
        "A distribution fitted to images",
        (*KEYS.values(), *columns.values()),
        [tuple(map(_text, line)) for line in means.itertuples(index=False)],
        "Means over training sets; errors over √D, noise in units of a feature's standard "
        "deviation.",
    )


def _text(value: str | float) -> str:
    """Returns a name or a number as text; missing values are empty."""
    if isinstance(value, str) or pd.isna(value):
        return value if isinstance(value, str) else ""
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{value:.3g}"


def _exponent(one: Exponent) -> tuple[str, ...]:
    points = ", ".join(f"{at:.3g}: {m:.0f}" for at, m in one.points[["at", "value"]].to_numpy())
    slope = plus_minus(one.slope.interval(), 2) if one.slope else ""
    return one.series.learner, one.quantity, one.series.against, slope, points


# Panels of figures of m*: the quantity on the axis, and the learner.
SERIES = {
    "scaling": [("R/σ", learner) for learner in (FINITE, *NETWORKS)],
    "varied": [
        *((against, FRESH) for against in ("d", "1/ε", "1/δ")),
        *((against, CLASS) for against in ("d", "1/ε", "1/δ", "log |H|")),
    ],
    "networks": [(against, FRESH) for against in ("P", "depth")],
}
ACROSS = 4  # Panels in a row, at most

AXES = {"d": "dimension d", "P": "number of weights P", "depth": "hidden layers"}
CURVES = {"m*_L2": ("mean square", "-", BASELINE), "m*_D": ("quantile", "--", FLOW)}

# Axes of columns of denoisers.
MEASURED = {"levels_l2": "σ L2 / √D over all levels", "levels_q": "σ Dᵟ / √D over all levels"}

STYLES = ("-", "-.", "--", ":")

# Colors of m, the smallest first.
SHADES = ("#9ecae1", "#6baed6", "#3182bd", "#08519c", "#08306b")

CAPTIONS = {
    "scaling": "A far mode, learned by a finite class and by networks: samples from which on the "
    "error stays below ε, with bootstrap intervals, and fitted powers with their exponents.",
    "indistinguishable": "A far mode on the right and on the left: nearly equal densities, whose "
    "scores differ much. Right: how often empirical risk minimization over both, and over 45 "
    "densities, has an error above ε; a line for each R/σ.",
    "varied": "Networks at one R/σ, and random finite classes: samples from which on the error "
    "stays below ε, against the dimension, ε, the mass δ beyond the quantile, and log |H|.",
    "networks": "Networks at one R/σ: samples from which on the error stays below ε, against the "
    "number of weights and the number of hidden layers.",
    "minimizer": "An easy truth, N(0, 1), and two rivals with a step in their scores. Right: how "
    "often the only empirical minimizer has an error above ε; a line for each step.",
    "data-like": "Denoisers of a distribution fitted to images, at the end of training, with an "
    "added mode and without: errors over all levels in mean square and at the quantile; means "
    "over training sets.",
    "sampling": "Samples of exact scores that are spoiled on a set of mass δ, or by ε at every "
    "point: distances from the truth, beside the bound.",
    "steps": "Samples of an exact score, and of one that is spoiled on a set of mass δ/N at each "
    "level, by the number of steps N.",
    "learned": "Samples by the reverse SDE of scores that networks learned, of training sets as "
    "they come: distances from the truth against both errors over all levels.",
    "flows": "Flows and free networks that learned from the same training sets, at noise levels "
    "of a bulk with a far mode: medians of both errors over training sets.",
    "images": "Diffusion models of distributions fitted to images. Samples by the probability "
    "flow from the same noise: of the exact score, and of U-Nets that learned from m samples. "
    "Digits have their mean image, others are shown without it. Right: both errors over all "
    "levels.",
    "dose": "By how much an added mode raises mean square over the quantile, against the noise, "
    "by its weight η and m; means over training sets.",
}


def figures(
    config: ComplexityConfig, exponents: Sequence[Exponent], rows: pd.DataFrame
) -> dict[str, Captioned]:
    """Returns the figures by name."""
    images = where(rows, panel="truths")
    drawn = {
        **{name: _crossings(places, exponents) for name, places in SERIES.items()},
        "data-like": _against_m(config, images),
        "dose": _dose(config, images),
        "sampling": draw_sampling(where(rows, panel="sampling")),
        "indistinguishable": draw_two_points(
            where(rows, panel="two points"), where(rows, panel="finite")
        ),
        "minimizer": draw_minimizers(where(rows, panel="minimizer")),
        "steps": draw_steps(where(rows, panel="steps")),
        "learned": draw_learned(where(rows, panel="learned")),
        "flows": draw_flows(where(rows, panel="flows")),
        "images": draw_images(config, where(rows, panel="images"), where(rows, panel="pictures")),
    }
    return {name: (drawn[name], caption) for name, caption in CAPTIONS.items()}


def _crossings(places: Sequence[tuple[str, str]], exponents: Sequence[Exponent]) -> Figure:
    """Draws m* with its intervals, and the fitted powers."""
    across = min(ACROSS, len(places))
    down = math.ceil(len(places) / across)
    figure, axes = panels(across, 4.0 * across, 3.2 * down, down=down, squeeze=False)
    for axis in axes.flat[len(places) :]:
        axis.axis("off")
    for axis, (against, learner) in zip(axes.flat, places, strict=False):
        name = AXES.get(against, against)
        axis.set(xscale="log", yscale="log", xlabel=name, ylabel="m*", title=learner)
        for one in exponents:
            if (one.series.against, one.series.learner) == (against, learner):
                _crossing(axis, one)
        axis.minorticks_off()
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    return figure


def _crossing(axis: Axes, one: Exponent) -> None:
    name, style, color = CURVES[one.quantity]
    at, m = one.points["at"], one.points["value"]
    reach = np.abs(one.points[["low", "high"]].sub(m, axis=0)).to_numpy().T
    axis.errorbar(at, m, reach, fmt="o", ms=4, color=color, capsize=2, lw=1)
    values = one.crossings["at"]
    axis.set_xticks(values, [f"{round(value, 1):g}" for value in values])
    if one.slope:
        slope = one.slope.value
        line = np.exp(np.log(m).mean() + slope * (np.log(at) - np.log(at).mean()))
        axis.plot(at, line, style, color=color, lw=1.2, label=f"{name}, exponent: {slope:.2f}")


def _against_m(config: ComplexityConfig, rows: pd.DataFrame) -> Figure:
    options = config.distribution
    figure, axes = panels(2, 8.4, 3.4)
    for axis, (column, name) in zip(axes, MEASURED.items(), strict=True):
        for eta, style in zip((0.0, *options.etas), cycle(STYLES), strict=False):
            label = f"η = {eta:g}" if eta else "no mode"
            networks = trained(learned(rows, eta))
            root = networks["size"].iloc[0] ** 0.5 if "level" in column else 1.0  # √D
            values = family(networks, column) / root
            axis.plot(options.sizes, values.mean(0), marker=".", label=label, ls=style, color=FLOW)
            axis.plot(options.sizes, values.T, lw=0.3, alpha=0.5, ls=style, color=FLOW)
        axis.set(xscale="log", xlabel="m", ylabel=name)
    axes[0].legend(fontsize=7)
    return figure


def _dose(config: ComplexityConfig, rows: pd.DataFrame) -> Figure:
    etas, sizes = config.distribution.etas, config.distribution.sizes
    down = max(1, len(etas))
    figure, axes = panels(1, 5.5, 2.4 * down, down=down, squeeze=False, sharex=True, sharey=True)
    plain, sigmas = learned(rows, 0.0), ladder(WIDEST, LEAST, config.distribution.levels)
    for axis, eta in zip(axes[:, 0], etas, strict=False):
        for m, color in zip(sizes, SHADES, strict=False):
            mean = rise(plain, learned(rows, eta), m).mean(0)
            axis.plot(sigmas, mean, color=color, marker=".", label=f"m = {m:,}")
        axis.set(xscale="log", ylabel="rise, as a logarithm", title=f"η = {eta:g}")
        axis.axhline(0, color="black", lw=0.5)
    axes[0, 0].legend(fontsize=7)
    axes[-1, 0].set_xlabel("σ")
    return figure
