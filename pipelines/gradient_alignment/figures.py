"""Figures of the study, each with its caption."""

__all__ = ["disguise", "figures", "law"]

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ebflow.alignment.regularisers import smallest_trace
from pipelines.gradient_alignment.measures import FRACTIONS, SIGMAS, STEPS
from pipelines.gradient_alignment.models import BLIND
from pipelines.gradient_alignment.table import Line
from pipelines.reporting.pictures import is_picture, tiles
from pipelines.reporting.style import BASELINE, DATA, FLOW

Lines = Mapping[str, Line]
Captioned = tuple[Figure, str]

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

SHOWN = ("baseline", "blind-gaussian", "score", "score-control", "centred", "anti", "paper-score",
         "fool-weights")  # fmt: skip
"""Models whose gradients and samples are shown, where they were measured."""


def figures(lines: Lines, shape: Sequence[int]) -> dict[str, Captioned]:
    """Returns the figures that the measured models allow, by name.

    Arguments:
        lines: The models.
        shape: The shape of an example.
    """
    whole = {name: line for name, line in lines.items() if _whole(line)}
    drawn = {
        "gauge": _gauge(whole),
        "alignment": _alignment(whole),
        "trade-off": _trade_off(whole),
    }
    if is_picture(shape):
        drawn |= {
            "gradients": _gradients(whole, shape),
            "samples": _samples(whole, shape),
            "attributions": _attributions(whole, shape),
        }
    drawn |= {
        "perturbation": _perturbation(whole),
        "follows": _follows(whole),
        "ratios": _ratios(whole),
        "training": _training(lines, int(np.prod(shape))),
    }
    optional: dict[str, Callable[[Lines], Captioned | None]] = {
        "law": law, "disguise": disguise, "estimators": _estimators,
    }  # fmt: skip
    found = {name: draw(whole) for name, draw in optional.items()}
    return drawn | {name: figure for name, figure in found.items() if figure is not None}


def _whole(line: Line) -> bool:
    """Returns whether no seed diverged."""
    return all(one.numbers for one in line.seeds)


def _some(lines: Lines) -> dict[str, Line]:
    return {name: line for name, line in lines.items() if name in COLOURS}


def _point(line: Line, metric: str) -> tuple[float, float]:
    """Returns the mean over seeds and the half-width, 0 for one seed."""
    found = line.interval(metric)
    return found.value, float(np.nan_to_num(found.high - found.value))


def _gauge(lines: Lines) -> Captioned:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    for name, line in _some(lines).items():
        (x, dx), (y, dy) = _point(line, "A1"), _point(line, "A3")
        axis.errorbar(x, y, xerr=dx, yerr=dy, fmt="o", color=COLOURS[name], label=name)
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


def _follows(lines: Lines) -> Captioned:
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (metric, kind) in zip(axes, (("A3", "centred"), ("A1", "raw")), strict=True):
        for name, line in _some(lines).items():
            (x, dx), (y, dy) = _point(line, metric), _point(line, f"PP/own/{kind}")
            axis.errorbar(x, y, xerr=dx, yerr=dy, fmt="o", color=COLOURS[name], label=name)
        axis.set_xlabel(metric)
        axis.set_title(f"by {kind} gradients", fontsize=9)
    axes[0].set_ylabel("pixel perturbation, accuracy")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure, (
        "Mean accuracy while the least salient pixels are filled in, against the alignment that "
        "it should follow. Bars are 95 % intervals over seeds."
    )


def _alignment(lines: Lines) -> Captioned:
    figure = Figure(figsize=(8, 1 + 0.28 * len(lines)), layout="constrained")
    axis = figure.subplots()
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
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    metric = "A1" if "A1" in next(iter(lines.values())).seeds[0].numbers else "A2"
    shown = {name: line for name, line in _some(lines).items() if name != "collapse"}
    for name, line in shown.items():
        (x, dx), (y, dy) = _point(line, metric), _point(line, "accuracy")
        axis.errorbar(x, y, xerr=dx, yerr=dy, fmt="o", color=COLOURS[name], label=name)
    axis.set_xlabel(f"{metric}, alignment with the reference")
    axis.set_ylabel("test accuracy")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure, (
        "What alignment costs in accuracy; the collapsed model is left out. Bars are 95 % "
        "intervals over seeds."
    )


def _rows_of(lines: Lines) -> dict[str, Mapping[str, np.ndarray]]:
    """Returns the arrays of the first seed of the models that are shown."""
    return {name: lines[name].seeds[0].arrays for name in SHOWN if name in lines}


def _gradients(lines: Lines, shape: Sequence[int]) -> Captioned:
    found = _rows_of(lines)
    images = next(iter(found.values()))["images"]
    grid = [("image", images, "gray")]
    grid += [(name, arrays["gradients"], "RdBu_r") for name, arrays in found.items()]
    if "baseline" in found:
        grid.append(("baseline, centred", found["baseline"]["centred"], "RdBu_r"))
    if "score" in found:
        grid.append(("score, centred", found["score"]["centred"], "RdBu_r"))
    return _grid(grid, shape), (
        "Gradients of the true class's logit at test images, each on its own scale: red raises "
        "the logit, blue lowers it. Centred: less the mean over classes."
    )


def _attributions(lines: Lines, shape: Sequence[int]) -> Captioned:
    grid = []
    names = ("saliency", "input × gradient", "integrated gradients")
    for model, arrays in _rows_of(lines).items():
        if model in ("baseline", "score", "fool-shift"):
            grid += [(f"{model}, {name}", arrays[name], "RdBu_r") for name in names]
    return _grid(grid, shape), (
        "Attributions of the true class's logit by captum, each on its own scale; integrated "
        "gradients from the image of the mean pixel."
    )


def _grid(rows: Sequence[tuple[str, np.ndarray, str]], shape: Sequence[int]) -> Figure:
    across = len(rows[0][1])
    figure = Figure(figsize=(2.2 + 0.75 * across, 0.78 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), across, squeeze=False)
    for line, (name, values, colours) in zip(axes, rows, strict=True):
        for axis, row in zip(line, values, strict=True):
            _show(axis, row, shape, colours)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def _show(axis: Axes, row: np.ndarray, shape: Sequence[int], colours: str) -> None:
    """Draws an image in [0, 1], or a signed one (the sum over its colours) on its own scale."""
    picture = row.reshape([size for size in shape if size > 1])
    if colours == "gray":
        axis.imshow(np.moveaxis(picture, 0, -1) if picture.ndim == 3 else picture,
                    cmap="gray", vmin=0, vmax=1)  # fmt: skip
    else:
        signed = picture.sum(0) if picture.ndim == 3 else picture
        most = np.abs(signed).max() or 1.0
        axis.imshow(signed, cmap=colours, vmin=-most, vmax=most)
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)


def _samples(lines: Lines, shape: Sequence[int]) -> Captioned:
    found = _rows_of(lines)
    figure = Figure(figsize=(8, 2.3 * -(-len(found) // 4)), layout="constrained")
    axes = figure.subplots(-(-len(found) // 4), 4, squeeze=False).ravel()
    for axis, (name, arrays) in zip(axes, found.items(), strict=False):
        axis.imshow(tiles(arrays["samples"], shape, 5), cmap="gray", vmin=0, vmax=1)
        dense, _ = _point(lines[name], "samples/log density")
        axis.set_title(f"{name}\nlog p / D = {dense:.2f}", fontsize=8)
    for axis in axes:
        axis.axis("off")
    return figure, (
        "Pictures of activity maximisation, and their mean log-density a dimension under the "
        "reference (nats)."
    )


def _perturbation(lines: Lines) -> Captioned:
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, 4, sharey=True)
    panels = [(judge, kind) for judge in ("own", "base") for kind in ("raw", "centred")]
    for axis, (judge, kind) in zip(axes, panels, strict=True):
        for name, line in _some(lines).items():
            if name != "collapse":
                curve = _mean(line, f"PP/{judge}/{kind}")
                axis.plot(FRACTIONS, curve, color=COLOURS[name], label=name)
        for control, style in (("random", ":"), ("magnitude", "--")):
            curve = _mean(lines["baseline"], f"PP/{judge}/{control}")
            axis.plot(FRACTIONS, curve, color="black", ls=style, lw=1, label=control)
        whose = "own" if judge == "own" else "baseline"
        axis.set_title(f"{kind}, {whose} judge", fontsize=9)
        axis.set_xlabel("fraction filled in")
    axes[0].set_ylabel("accuracy")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center")
    return figure, (
        "Accuracy while the least salient pixels are filled in with the image's mean, mean over "
        "seeds; higher is better. Controls of the baseline: random pixels, and those nearest to "
        "the mean."
    )


def _mean(line: Line, name: str) -> np.ndarray:
    return np.mean([one.arrays[name] for one in line.seeds], axis=0)


def _ratios(lines: Lines) -> Captioned:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots(1, 2)
    pairs = (("log mean ratio", "log of the mean"), ("mean log ratio", "mean of the logarithm"))
    for axis, (name, title) in zip(axes, pairs, strict=True):
        for model, line in _some(lines).items():
            axis.plot(SIGMAS, _mean(line, name), color=COLOURS[model], marker=".", label=model)
        axis.axhline(0, color="black", lw=0.5)
        axis.set_yscale("symlog", linthresh=1)
        axis.set_xlabel("standard deviation of the noise η")
        axis.set_title(title)
    axes[0].set_ylabel("p(x + η | y) / p(x | y), nats")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure, (
        "Density ratios of noisy and clean test images. Above 0 the noisy image is taken for "
        "the denser one; the mean is dominated by its outliers."
    )


def _training(lines: Lines, width: int) -> Captioned:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, line in _some(lines).items():
        epochs = line.seeds[0].epochs
        steps = np.arange(1, len(epochs) + 1)
        style = {"color": COLOURS[name], "label": name, "lw": 1.2}
        left.plot(steps, [epoch["val/accuracy"] for epoch in epochs], **style)
        right.plot(steps, [epoch["probe/trace"] for epoch in epochs], **style)
    smoothing = next(iter(lines.values())).model.classifier.smoothing
    right.axhline(smallest_trace(width, smoothing), color="black", ls="--", lw=1)
    right.set_yscale("symlog", linthresh=10)
    left.set_ylabel("validation accuracy")
    right.set_ylabel("mean trace of a training batch")
    for axis in (left, right):
        axis.set_xlabel("epoch")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center")
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
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
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
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axis = figure.subplots()
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
    figure.legend(loc="outside right center")
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
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    exact = float(arrays["estimators/trace"])
    for name, colour in ESTIMATED.items():
        told, label = arrays[f"estimators/{name}"], name.replace("/", ", ")
        left.plot(STEPS, told[:, 1], color=colour, marker=".", label=label)
        right.plot(STEPS, told[:, 0] - exact, color=colour, marker=".")
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
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center")
    return figure, (
        "Trace estimators on the baseline of seed 0, one direction. The linear term that the "
        "one-sided estimator drops is nearly all of its deviation, and by chance alone its bias: "
        "10,000 estimates have a hundredth of the deviation as error of the mean."
    )
