"""Figures of the study, each with its caption."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ebflow.alignment.regularisers import smallest_trace
from pipelines.gradient_alignment import pictures
from pipelines.gradient_alignment.comparisons import Lines
from pipelines.gradient_alignment.measures import FRACTIONS, SIGMAS, STEPS
from pipelines.gradient_alignment.models import BLIND
from pipelines.gradient_alignment.pictures import Captioned
from pipelines.gradient_alignment.table import Line
from pipelines.reporting.pictures import is_picture
from pipelines.reporting.style import BASELINE, DATA, FLOW, legend, panels

COLOURS = {
    "baseline": DATA,
    "score": FLOW,
    "score-free": "#6fa3d8",
    "score-control": "#8a6fb3",
    "centred": "#00838f",
    "centred-control": "#7fb8bd",
    "blind-gaussian": "#777777",
    "gnorm": "#b39ddb",
    "anti": BASELINE,
    "paper-score": "#2a8c6a",
    "paper-control": "#7fc7ab",
    "paper-quiet": "#1d5f49",
    "paper-anti": "#e0a13a",
    "fool-shift": "#c2185b",
    "fool-weights": "#e58fb1",
    "collapse": "#222222",
}
"""Of models that are drawn as curves; others are left out of these."""

ESTIMATED = {
    "taylor/gaussian": BASELINE,
    "taylor_cv/gaussian": FLOW,
    "taylor_cv/rademacher": "#2a8c6a",
    "two_sided/rademacher": "#8a6fb3",
    "hutchinson/rademacher": DATA,
}
"""Trace estimators that are drawn; a table has all."""


def figures(lines: Lines, shape: Sequence[int]) -> dict[str, Captioned]:
    """Returns the figures that the measured models allow, by name.

    Arguments:
        lines: The models.
        shape: The shape of an example.
    """
    # Numbers and curves are means over seeds, of models of which none diverged.
    whole = {name: line for name, line in lines.items() if all(one.numbers for one in line.seeds)}
    found: dict[str, Captioned | None] = {name: draw(whole) for name, draw in PLANES.items()}
    if is_picture(shape):
        found |= {name: draw(whole, shape) for name, draw in pictures.PICTURES.items()}
    found |= {name: draw(whole) for name, draw in CURVES.items()}
    found["training"] = _training(lines, int(np.prod(shape)))
    return {name: figure for name, figure in found.items() if figure is not None}


def _some(lines: Lines) -> dict[str, Line]:
    return {name: line for name, line in lines.items() if name in COLOURS}


def _point(line: Line, metric: str) -> tuple[float, float]:
    """Returns the mean over seeds and the half-width, 0 for one seed."""
    found = line.interval(metric)
    return found.value, float(np.nan_to_num(found.high - found.value))


def _scatter(axis: Axes, lines: Lines, x: str, y: str) -> None:
    """Draws models as points over two metrics, with intervals over seeds."""
    for name, line in _some(lines).items():
        (at, dx), (height, dy) = _point(line, x), _point(line, y)
        axis.errorbar(at, height, xerr=dx, yerr=dy, fmt="o", color=COLOURS[name], label=name)


def _gauge(lines: Lines) -> Captioned:
    figure, axis = panels(height=4)
    _scatter(axis, lines, "A1", "A3")
    for name, style in zip(BLIND.values(), ("--", ":"), strict=True):
        axis.axvline(_point(lines[name], "A1")[0], color="black", ls=style, lw=1, label=name)
    axis.axhline(_point(lines["baseline"], "A3")[0], color="black", lw=0.5)
    axis.set_xlabel("A1, which a shift of all logits moves")
    axis.set_ylabel("A3, which none moves")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure, (
        "Up to the vertical lines A1 is had by a class-blind Gaussian or flow on the baseline's "
        "logits, which moves along the horizontal line. Bars are 95 % intervals over seeds."
    )


def _alignment(lines: Lines) -> Captioned:
    figure, axis = panels(height=1 + 0.28 * len(lines))
    at = np.arange(len(lines))[::-1]
    for metric, colour, mark in (("A2", DATA, "s"), ("A1", FLOW, "o"), ("A3", BASELINE, "D")):
        values, half = zip(*(_point(line, metric) for line in lines.values()), strict=True)
        axis.errorbar(values, at, xerr=half, fmt=mark, color=colour, label=metric, ms=5)
    axis.set_yticks(at, list(lines))
    axis.set_ylim(-0.6, len(lines) - 0.4)
    axis.axvline(0, color="black", lw=0.5)
    axis.set_xlabel("mean cosine with the score of the reference")
    figure.legend(ncols=3, loc="outside upper right")
    return figure, (
        "A1: the class's score; A2: the marginals'; A3: class-mean-centred ones, which no shift "
        "of the logits moves. Bars are 95 % intervals over seeds."
    )


def _trade_off(lines: Lines) -> Captioned:
    figure, axis = panels(height=3.6)
    metric = "A1" if "A1" in next(iter(lines.values())).seeds[0].numbers else "A2"
    shown = {name: line for name, line in lines.items() if name != "collapse"}
    _scatter(axis, shown, metric, "accuracy")
    axis.set_xlabel(f"{metric}, alignment with the reference")
    axis.set_ylabel("test accuracy")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure, (
        "What alignment costs in accuracy; the collapsed model is left out. Bars are 95 % "
        "intervals over seeds."
    )


def _follows(lines: Lines) -> Captioned:
    figure, axes = panels(2, height=3.4, sharey=True)
    for axis, (metric, kind) in zip(axes, (("A3", "centred"), ("A1", "raw")), strict=True):
        _scatter(axis, lines, metric, f"PP/own/{kind}")
        axis.set_xlabel(metric)
        axis.set_title(f"by {kind} gradients", fontsize=9)
    axes[0].set_ylabel("pixel perturbation, accuracy")
    legend(figure, axes[0], size=8)
    return figure, (
        "Mean accuracy while the least salient pixels are filled in, against the alignment that "
        "it should follow. Bars are 95 % intervals over seeds."
    )


JUDGES = {"own": "itself", "base": "the baseline", "other": "another net"}
"""Who sees the images of which pixels are filled in."""


def _perturbation(lines: Lines) -> Captioned:
    figure, axes = panels(3, width=10, height=5.6, down=2, sharex=True, sharey=True)
    pairs = [(judge, kind) for kind in ("raw", "centred") for judge in JUDGES]
    shown = {name: line for name, line in lines.items() if name != "collapse"}
    for axis, (judge, kind) in zip(axes.flat, pairs, strict=True):
        _curves(axis, shown, FRACTIONS, f"PP/{judge}/{kind}")
        for control, style in (("random", ":"), ("magnitude", "--")):
            curve = lines["baseline"].curve(f"PP/{judge}/{control}")
            axis.plot(FRACTIONS, curve, color="black", ls=style, lw=1, label=control)
        axis.set_title(f"{kind}, judged by {JUDGES[judge]}", fontsize=9)
    figure.supxlabel("fraction filled in", fontsize=10)
    figure.supylabel("accuracy", fontsize=10)
    legend(figure, axes[0, 0])
    return figure, (
        "Accuracy while the least salient pixels are filled in with the image's mean, mean over "
        "seeds; higher is better. Controls of the baseline: random pixels, and those nearest to "
        "the mean."
    )


def _curves(axis: Axes, lines: Lines, x: Sequence[float], name: str, **style: Any) -> None:  # noqa: ANN401
    """Draws an array of every model, the mean over its seeds."""
    for model, line in _some(lines).items():
        axis.plot(x, line.curve(name), color=COLOURS[model], label=model, **style)


def _ratios(lines: Lines) -> Captioned:
    figure, axes = panels(2)
    pairs = (("log mean ratio", "log of the mean"), ("mean log ratio", "mean of the logarithm"))
    for axis, (name, title) in zip(axes, pairs, strict=True):
        _curves(axis, lines, SIGMAS, name, marker=".")
        axis.axhline(0, color="black", lw=0.5)
        axis.set_yscale("symlog", linthresh=1)
        axis.set_xlabel("standard deviation of the noise η")
        axis.set_title(title)
    axes[0].set_ylabel("p(x + η | y) / p(x | y), nats")
    legend(figure, axes[0])
    return figure, (
        "Density ratios of noisy and clean test images. Above 0 the noisy image is taken for "
        "the denser one; the mean is dominated by its outliers."
    )


def _training(lines: Lines, width: int) -> Captioned:
    figure, axes = panels(2)
    series = (
        ("val/accuracy", "validation accuracy"),
        ("probe/trace", "mean trace of a training batch"),
    )
    for axis, (metric, text) in zip(axes, series, strict=True):
        for name, line in _some(lines).items():
            values = [epoch[metric] for epoch in line.seeds[0].epochs]
            axis.plot(range(1, len(values) + 1), values, color=COLOURS[name], label=name, lw=1.2)
        axis.set_xlabel("epoch")
        axis.set_ylabel(text)
    smoothing = next(iter(lines.values())).model.classifier.smoothing
    axes[1].axhline(smallest_trace(width, smoothing), color="black", ls="--", lw=1)
    axes[1].set_yscale("symlog", linthresh=10)
    legend(figure, axes[0])
    return figure, (
        "Seed 0. The dashed line is the floor −D/s² of data smoothed by the study's noise: a "
        "trace below it is a collapse onto the training points."
    )


def law(lines: Lines) -> Captioned | None:
    """Draws the shrinking of gradients by the stability penalty."""
    if not {"score", "score-free"} <= lines.keys():
        return None
    free, score = lines["score-free"], lines["score"]
    energy = -free.values("trace")
    mu = np.geomspace(1e-5, 1e-1, 100)
    figure, axis = panels(width=5)
    axis.plot(mu, 1 / (1 + 2 * mu * energy.mean()), color=DATA, label="1 / (1 + 2 μ T)")
    at = score.model.classifier.regulariser.stability
    ratio = score.values("gradient") / free.values("gradient")
    axis.plot([at] * len(ratio), ratio, "o", color=FLOW, label="measured, seed by seed")
    axis.set_xscale("log")
    axis.set_xlabel("μ, factor of the squared trace")
    axis.set_ylabel("‖g‖ over that at μ = 0")
    axis.legend()
    return figure, (
        f"The stability penalty is a temperature: it shrinks gradients by the law, with "
        f"T = {energy.mean():.0f} here, and turns none."
    )


DISGUISED = {
    "paper-score": ("o", "#2a8c6a"),
    "paper-control": ("s", "#7fc7ab"),
    "paper-quiet": ("D", "#1d5f49"),
    "code-score": ("o", "#e0a13a"),
    "code-control": ("s", "#e58fb1"),
}
"""Published score matching and its controls."""


def disguise(lines: Lines) -> Captioned | None:
    """Draws published score matching and its controls."""
    found = {k: line for k, line in lines.items() if k in DISGUISED and _published(k) in lines}
    if not found:
        return None
    metrics = ("accuracy", "gradient", "trace", "A1", "A2", "A3", "DSM-cos", "PP/own/raw")
    figure, axis = panels()
    for place, (name, line) in zip(
        np.linspace(-0.25, 0.25, len(found)), found.items(), strict=True
    ):
        mark, colour = DISGUISED[name]
        base = np.array([_point(lines[_published(name)], metric)[0] for metric in metrics])
        value, half = np.array([_point(line, metric) for metric in metrics]).T / base
        axis.errorbar(np.arange(len(metrics)) + place, value, yerr=np.abs(half), fmt=mark,
                      color=colour, label=name)  # fmt: skip
    axis.set_xticks(range(len(metrics)), metrics)
    axis.set_ylabel("over the mean of …-score")
    legend(figure, axis)
    return figure, (
        "Published score matching; the gradient-norm penalty at its equivalent strength "
        "(…-control), and score matching by a quiet estimator beside that penalty (…-quiet), over "
        "the former's means; bars are 95 % intervals over seeds."
    )


def _published(name: str) -> str:
    """Returns the score matching of a control's preset."""
    return f"{name.split('-')[0]}-score"


def _estimators(lines: Lines) -> Captioned | None:
    arrays = lines["baseline"].seeds[0].arrays
    if "estimators/trace" not in arrays:
        return None
    figure, (left, right) = panels(2)
    exact = float(arrays["estimators/trace"])
    for name, colour in ESTIMATED.items():
        estimates, label = arrays[f"estimators/{name}"], name.replace("/", ", ")
        left.plot(STEPS, estimates[:, 1], color=colour, marker=".", label=label)
        right.plot(STEPS, estimates[:, 0] - exact, color=colour, marker=".")
    gradient = float(arrays["estimators/gradient"])
    left.plot(STEPS, 2 * gradient / np.array(STEPS), color="black", ls="--", lw=1,
              label="2 ‖g‖ / σ")  # fmt: skip
    left.axhline(abs(exact), color="black", ls=":", lw=1, label="|tr H|")
    left.set_yscale("log")
    right.set_yscale("symlog", linthresh=1)
    left.set_ylabel("deviation of one estimate")
    right.set_ylabel("bias")
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xlabel("step σ")
    legend(figure, left)
    return figure, (
        "Trace estimators on the baseline of seed 0, one direction. The linear term that the "
        "one-sided estimator drops is nearly all of its deviation, and by chance alone its bias: "
        "10,000 estimates have a hundredth of the deviation as error of the mean."
    )


PLANES: dict[str, Callable[[Lines], Captioned]] = {
    "gauge": _gauge,
    "alignment": _alignment,
    "trade-off": _trade_off,
}
CURVES: dict[str, Callable[[Lines], Captioned | None]] = {
    "perturbation": _perturbation,
    "follows": _follows,
    "ratios": _ratios,
    "law": law,
    "disguise": disguise,
    "estimators": _estimators,
}
"""Figures by name, in the order of the page; the pictures come behind the planes."""
