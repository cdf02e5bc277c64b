"""The figures of the study of sample complexity."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ebflow.complexity.classes import FAR
from ebflow.complexity.closed_forms import chance_of_error, far_crossing, worst_eta
from ebflow.complexity.crossing import crossing
from ebflow.complexity.efficiency import mode_weight, mode_weight_ml
from ebflow.complexity.errors import THRESHOLDS
from pipelines.reporting.style import BASELINE, DATA, FLOW, panels
from pipelines.sample_complexity import law_figures
from pipelines.sample_complexity.cells import (
    PAIR_OBJECTIVES,
    SEPARATIONS,
    TRANSITION,
    TRANSITION_DELTAS,
    WEIGHT_NOISE,
)
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.instrument import efficiency, surprise
from pipelines.sample_complexity.results import NETWORKS, Answer, counted, decisive, matrix, where
from pipelines.sample_complexity.verdicts import floors, sampling

COLOURS = (FLOW, BASELINE, "#2f8f5b", "#d9a441", "#7a4fa3", DATA)
LINES = {"m*_L2": "-", "m*_D": "--"}

CAPTIONS = {
    "chances": "Left: how often ERM over two candidates errs (points), and ½ (1 − η)ᵐ (lines). "
    "Right: how often the error of ERM over 45 laws is above ε, in mean square (solid) and at "
    "the quantile (dashed), and ⅘ (1 − η)ᵐ, the chance of a wrong guess among the five places of "
    "a far mode (dotted).",
    "scaling": "Samples from which on the error stays below ε, with bootstrap intervals, and "
    "fitted powers: mean square (solid) and quantile (dashed). Dotted: where the far mode alone "
    "would decide, at which as many training sets have a sample of it as have to.",
    "dimensions": "The same against the dimension, and against the size of a finite class.",
    "varied": "Networks on the line, at one R/σ: samples from which on the error stays below ε, "
    "against ε, the mass δ beyond the quantile, the far mode's weight η over its worst value, and "
    "the networks' width and depth; mean square (solid) and quantile (dashed).",
    "steps": "Samples that it takes to tell N(0, 1) from a score with a step of height S.",
    "transition": "Fixed η: quantiles below η need what mean square needs, those above do not.",
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
    "laws": "The whole law of a network's error: without and with far samples in training, at one "
    "m. The error of the former lies on a mass of η.",
    "estimators": "Networks: the error in mean square, and on the bulk alone, with one noise a "
    "sample and with fresh noise; medians.",
    "divergences": "Two Gaussians by each objective: the divergence from the law (left; lines "
    "across: m = ∞, no sample seen twice), m times it, and m times that from the law that the "
    "objective learns (right); dotted: half the number of parameters.",
    "efficiency": "Asymptotic variance of a mode's weight over that of maximum likelihood "
    "(lines), and from drawn samples (points, 95 %).",
}
"""By the names of the figures."""


def figures(
    config: ComplexityConfig, answers: Sequence[Answer], rows: pa.Table
) -> dict[str, Figure]:
    """Returns the figures by name."""
    return {
        "chances": _chances(config, rows),
        "scaling": _scaling(config, answers),
        "dimensions": _dimensions(answers),
        "varied": _varied(answers),
        "steps": _steps(answers),
        "transition": _transition(config, rows),
        "sampling": _sampling(config, rows),
        "laws": _laws(config, rows),
        "estimators": _estimators(rows),
        "divergences": _divergences(rows),
        "efficiency": _efficiency(rows),
        "data-like": law_figures.against_m(config, rows),
        "dose": law_figures.dose(config, rows),
        "families": law_figures.families(config, rows),
        "memory": law_figures.memory(config, rows),
    }


def _figure(columns: int, height: float = 3.2) -> tuple[Figure, np.ndarray]:
    figure, axes = panels(columns, 4.2 * columns, height, squeeze=False)
    return figure, axes[0]


def _chances(config: ComplexityConfig, rows: pa.Table) -> Figure:
    figure, (left, right) = _figure(2)
    points = surprise(rows)
    for colour, ratio in zip(COLOURS, sorted({p[0] for p in points}), strict=False):
        sizes, rates, expected = zip(*(p[1:4] for p in points if p[0] == ratio), strict=True)
        left.plot(sizes, expected, color=colour, lw=1)
        left.plot(sizes, rates, "o", ms=4, color=colour, label=f"R/σ = {ratio:g}")
    finite = where(rows, panel="finite", size=1)
    for colour, ratio in zip(COLOURS, sorted(set(finite["ratio"].to_pylist())), strict=False):
        some = where(finite, ratio=ratio)
        eta = some["eta"][0].as_py()
        for column, style in (("sigma_l2", "-"), (decisive(config), "--")):
            errors, sizes = matrix(some, column)
            right.plot(sizes, (errors > config.grid.epsilon).mean(0), style, color=colour, lw=1)
        guess = [chance_of_error(m, eta, len(FAR)) for m in sizes]
        right.plot(sizes, guess, ":", color=colour, lw=1)
    for axis, name in ((left, "Pr[ERM errs], two candidates"), (right, "Pr[error > ε], 45 laws")):
        axis.set(xscale="log", xlabel="m", ylabel=name)
    left.legend()
    return figure


def _grown(axis: Axes, one: Answer, colour: str, label: str) -> None:
    """Draws m* with its intervals, and the fitted power."""
    known = [
        (v, m) for v, m in zip(one.values, one.crossings, strict=True) if np.isfinite(m.value)
    ]
    if not known:
        return
    values = np.array([v for v, _ in known])
    found = np.array([m for _, m in known])
    reach = np.abs(found[:, 1:].T - found[:, 0])
    style = LINES[one.question.quantity]
    legend = f"{label}: {one.slope.value:.2f}" if one.slope else label
    axis.errorbar(values, found[:, 0], reach, fmt="o", ms=4, color=colour, capsize=2, lw=1)
    if one.slope:
        middle = np.exp(np.log(found[:, 0]).mean())
        line = middle * (values / np.exp(np.log(values).mean())) ** one.slope.value
        axis.plot(values, line, style, color=colour, lw=1.2, label=legend)
    axis.set(xscale="log", yscale="log", ylabel="m*")


def _scaling(config: ComplexityConfig, answers: Sequence[Answer]) -> Figure:
    learners = ("finite", *NETWORKS)
    figure, axes = _figure(len(learners))
    for axis, learner in zip(axes, learners, strict=True):
        for one in answers:
            question = one.question
            if (question.against, question.learner) == ("R/sigma", learner):
                colour = FLOW if question.quantity == "m*_D" else BASELINE
                _grown(axis, one, colour, f"{_error(question.quantity)}, exponent")
                if question.quantity == "m*_L2":
                    etas = [worst_eta(value, config.grid.epsilon) for value in one.values]
                    rivals = len(FAR) if learner == "finite" else math.inf
                    exact = [far_crossing(eta, question.level, rivals) for eta in etas]
                    axis.loglog(one.values, exact, "k:", lw=1, label="far mode alone: 2")
        axis.set(title=f"{learner} class" if learner == "finite" else learner, xlabel="R/σ")
        _ticks(axis, [one for one in answers if one.question.learner == learner], "R/sigma")
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    return figure


def _error(quantity: str) -> str:
    return {"m*_L2": "mean square", "m*_D": "quantile"}[quantity]


def _ticks(axis: Axes, answers: Sequence[Answer], against: str) -> None:
    values = sorted({v for one in answers if one.question.against == against for v in one.values})
    axis.set_xticks(values, [f"{round(value, 1):g}" for value in values])
    axis.minorticks_off()


def _dimensions(answers: Sequence[Answer]) -> Figure:
    figure, (left, right) = _figure(2)
    colours = {"finite": FLOW, NETWORKS[-1]: BASELINE}
    for axis, against in ((left, "d"), (right, "log|H|")):
        for one in answers:
            question = one.question
            if question.against == against:
                name = question.learner.partition(",")[0]
                _grown(
                    axis, one, colours[question.learner], f"{name}, {_error(question.quantity)}"
                )
        axis.set_xlabel({"d": "dimension d", "log|H|": "log |H|"}[against])
        _ticks(axis, answers, against)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


VARIED = {
    "1/epsilon": "1/ε",
    "1/delta": "1/δ",
    "rarity": "η over the worst one",
    "width": "width",
    "depth": "depth",
}
"""By what is varied of networks at one R/σ: its name."""


def _varied(answers: Sequence[Answer]) -> Figure:
    figure, axes = panels(3, 12.6, 6.0, down=2, sharey=True)
    for axis, (against, name) in zip(axes.flat, VARIED.items(), strict=False):
        for one in answers:
            question = one.question
            if question.against == against:
                colour = FLOW if question.quantity == "m*_D" else BASELINE
                _grown(axis, one, colour, f"{_error(question.quantity)}, exponent")
        axis.set_xlabel(name)
        _ticks(axis, answers, against)
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    axes[-1, -1].axis("off")
    return figure


def _steps(answers: Sequence[Answer]) -> Figure:
    figure, (axis,) = _figure(1)
    _grown(axis, next(a for a in answers if a.question.against == "S"), FLOW, "exponent")
    axis.set_xlabel("height S of the step")
    _ticks(axis, answers, "S")
    axis.legend()
    return figure


def _transition(config: ComplexityConfig, rows: pa.Table) -> Figure:
    figure, (left, right) = _figure(2)
    transition = where(rows, panel="transition")
    columns = {f"δ = {d:g}": f"sigma_d_{d:g}" for d in TRANSITION_DELTAS}
    for colour, (label, column) in zip(COLOURS, columns.items(), strict=False):
        errors, sizes = matrix(transition, column)
        left.plot(sizes, np.quantile(errors, 0.75, axis=0), color=colour, lw=1, label=label)
    mean, sizes = matrix(transition, "sigma_l2")
    left.plot(sizes, np.quantile(mean, 0.75, axis=0), "k:", label="mean square")
    left.axhline(config.grid.epsilon, color="black", lw=0.5)
    left.set(xscale="log", yscale="symlog", xlabel="m", ylabel="error, upper quartile")
    left.set_ylim(bottom=0)
    left.legend(fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    found = [float(crossing(matrix(transition, c)[0], sizes, config.grid.epsilon))
             for c in columns.values()]  # fmt: skip
    right.plot(TRANSITION_DELTAS, found, "o-", color=FLOW, label="quantile")
    right.axhline(crossing(mean, sizes, config.grid.epsilon), color="black", ls=":",
                  label="mean square")  # fmt: skip
    right.axvline(TRANSITION, color=BASELINE, lw=1, label="η")
    right.set(xscale="log", yscale="log", xlabel="δ", ylabel="m*")
    right.legend()
    return figure


def _sampling(config: ComplexityConfig, rows: pa.Table) -> Figure:
    networks = sampling(rows)
    columns = {"levels_l2": "σ L2 over all levels", "levels_q": "σ Dᵟ over all levels"}
    outcomes = {"tv": "total variation", "w2": "W2"}
    figure, grid = panels(2, 8.4, 7.0, down=2)
    sizes = 12 + 8 * np.log2(networks["m"].to_numpy() / min(networks["m"].to_pylist()))
    kinds = np.where(networks["n_far"].to_numpy() > 0, FLOW, BASELINE)
    for line, (outcome, name) in zip(grid, outcomes.items(), strict=True):
        for axis, (column, label) in zip(line, columns.items(), strict=True):
            x, y = (networks[key].to_numpy() for key in (column, outcome))
            axis.scatter(x, y, s=sizes, c=kinds, alpha=0.7)
            for learner, style in (("exact score", "--"), ("true samples", ":")):
                floor = floors(rows, learner)[outcome].to_numpy()
                axis.axhline(floor.mean(), color="black", ls=style, lw=0.8, label=learner)
            axis.set(xscale="log", yscale="log", xlabel=label, ylabel=name)
            _plain(axis.xaxis)
            _plain(axis.yaxis)
    grid[0, 0].scatter([], [], c=FLOW, label="far samples seen")
    grid[0, 0].scatter([], [], c=BASELINE, label="none seen; size: m")
    grid[0, 0].legend(fontsize=7)
    return figure


def _plain(side: Axis) -> None:
    """Labels a logarithmic axis of few decades by 1, 2, 5, … in full."""
    side.set_major_locator(LogLocator(subs=(1, 2, 5)))
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    side.set_minor_formatter(NullFormatter())


def _laws(config: ComplexityConfig, rows: pa.Table) -> Figure:
    figure, (axis,) = _figure(1, 3.4)
    networks = where(rows, panel="networks", learner=NETWORKS[-1], size=1)
    networks = where(networks, ratio=max(networks["ratio"].to_pylist()))
    seen = networks["n_far"].to_numpy() > 0
    sizes = networks["m"].to_numpy()
    both = [m for m in np.unique(sizes) if 0 < seen[sizes == m].mean() < 1]
    m = both[len(both) // 2] if both else int(np.median(sizes))
    laws = np.stack(networks["exceeding"].to_numpy())
    for here, colour, label in ((False, BASELINE, "no far sample"), (True, FLOW, "far samples")):
        for index, row in enumerate(laws[(sizes == m) & (seen == here)]):
            axis.plot(THRESHOLDS, row, color=colour, lw=0.7, alpha=0.7,
                      label=label if index == 0 else None)  # fmt: skip
    eta = networks["eta"][0].as_py()
    axis.axhline(eta, color="black", ls=":", lw=0.8, label="η")
    delta = config.grid.deltas[-1]
    axis.axhline(delta, color="black", ls="--", lw=0.8, label="δ")
    axis.set(xscale="log", yscale="log", xlabel="t", ylabel="Pr[σ e ≥ t]", ylim=(eta / 20, 1.5))
    axis.set_title(f"R/σ = {networks['ratio'][0].as_py():g}, m = {m}")
    axis.legend()
    return figure


def _estimators(rows: pa.Table) -> Figure:
    figure, axes = _figure(2)
    for learner, style in zip(NETWORKS, ("--", "-"), strict=True):
        nets = where(rows, panel="networks", learner=learner, size=1)
        for colour, ratio in zip(COLOURS, sorted(set(nets["ratio"].to_pylist())), strict=False):
            for axis, column in zip(axes, ("sigma_l2", "sigma_l2_bulk"), strict=True):
                errors, sizes = matrix(where(nets, ratio=ratio), column)
                label = f"R/σ = {ratio:g}, {learner.split()[-1]}"
                axis.plot(sizes, np.median(errors, 0), style, color=colour, lw=1, label=label)
    for axis, name in zip(axes, ("σ L2, median", "σ L2 on the bulk, median"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="m", ylabel=name)
        _plain(axis.yaxis)
    axes[0].legend(fontsize=6, ncols=2)
    return figure


def _divergences(rows: pa.Table) -> Figure:
    figure, axes = _figure(3)
    pairs = where(rows, panel="pairs")
    for a, style in zip(SEPARATIONS, ("-", "--"), strict=True):
        for colour, name in zip(COLOURS, PAIR_OBJECTIVES, strict=False):
            look = {"ls": style, "color": colour, "lw": 1}
            some = where(pairs, a=a, learner=name)
            _against_m(axes[0], some, "kl", label=f"{name}, a = {a:g}", **look)
            for axis, column in zip(axes[1:], ("kl", "kl_smoothed"), strict=True):
                found, sizes = matrix(counted(some), column)
                axis.plot(sizes, found.mean(0) * sizes, marker=".", **look)
    axes[0].axhline(math.nan, color="black", lw=0.5, label="m = ∞")
    names = ("KL(p ‖ flow), nats", "m KL(p ‖ flow)", "m KL(learnt law ‖ flow)")
    for axis, name in zip(axes, names, strict=True):
        axis.set(xscale="log", yscale="log", xlabel="m", ylabel=name)
    for axis in axes[1:]:
        axis.axhline(2.5, color="black", ls=":", lw=0.8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    return figure


def _against_m(axis: Axes, rows: pa.Table, column: str, **look: Any) -> None:  # noqa: ANN401
    """Draws means over training sets against m, and across that of m = ∞."""
    found, sizes = matrix(counted(rows), column)
    axis.plot(sizes, found.mean(0), marker=".", **look)
    endless = rows.filter(pc.is_null(rows["m"]))[column].to_numpy()
    axis.axhline(endless.mean(), color=look["color"], ls=look["ls"], lw=0.5)


def _efficiency(rows: pa.Table) -> Figure:
    figure, (axis,) = _figure(1, 3.4)
    weights = where(rows, panel="weights")
    grid = np.linspace(0.5, 3, 26)
    for colour, sigma in zip(COLOURS, (0.0, 0.5, 1.0, WEIGHT_NOISE), strict=False):
        name = f"dsm{sigma:g}" if sigma else "ism"
        label = f"denoising, σ = {sigma:g}" if sigma else "score matching"
        ratios = [mode_weight(float(a), sigma) / mode_weight_ml(float(a)) for a in grid]
        axis.plot(grid, ratios, color=colour, lw=1, label=label)
        if name in set(weights["learner"].to_pylist()):
            values = sorted(set(weights["a"].to_pylist()))
            found = np.exp([efficiency(weights, a, name).interval() for a in values])
            reach = np.abs(found[:, 1:].T - found[:, 0])
            axis.errorbar(values, found[:, 0], reach, fmt="o", ms=4, color=colour, capsize=2)
    axis.set(yscale="log", xlabel="a: modes at ±a, deviation 1", ylabel="variance over ML's")
    axis.legend()
    return figure
