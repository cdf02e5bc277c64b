"""Figures of the study, each with its caption."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.gradient_alignment.measures import SHOWN
from pipelines.gradient_alignment.models import BLIND
from pipelines.gradient_alignment.over_seeds import Line, Lines
from pipelines.reporting.pictures import is_picture, show_tiles, tiles
from pipelines.reporting.style import BASELINE, DATA, FLOW, Captioned, panels

COLOURS = {
    "baseline": DATA, "score": FLOW, "score-free": "#6fa3d8", "score-control": "#8a6fb3",
    "centred": "#00838f", "centred-control": "#7fb8bd", "blind-gaussian": "#777777",
    "gnorm": "#b39ddb", "anti": BASELINE, "paper-score": "#2a8c6a", "paper-control": "#7fc7ab",
    "paper-quiet": "#1d5f49", "paper-anti": "#e0a13a", "fool-shift": "#c2185b",
    "fool-weights": "#e58fb1", "code-score": "#8c6d31", "code-control": "#c7a76b",
}  # fmt: skip
"""Of models that are drawn over two metrics; others are left out."""

Pair = tuple[str, str]

PLANES = {
    "gauge": (
        (("A1", "A3"),),
        "A1, which a shift of all logits moves, and A3, which none moves. Up to the vertical "
        "lines A1 is had by a class-blind Gaussian or flow on the baseline's logits, which moves "
        "along the horizontal line.",
    ),
    "trade-off": (
        (("A1", "accuracy"), ("gradient", "A3")),
        "What alignment costs in test accuracy, and how long the gradients are.",
    ),
    "follows": (
        (("A3", "PP/own/centred"), ("A1", "PP/own/raw"), ("A3", "off-manifold"),
         ("A1", "DSM-cos")),
        "What may follow alignment: mean accuracy while the least salient pixels are filled in, "
        "by centred and by raw gradients, robustness off the manifold, and the DSM cosine.",
    ),
}  # fmt: skip
"""Models over two metrics: the pairs of these, and the caption."""

PICTURED = ("baseline", "blind-gaussian", "score", "score-control", "centred", "anti",
            "paper-score", "fool-weights")  # fmt: skip
"""Models whose gradients and samples are shown, where they were measured."""


def figures(lines: Lines, shape: Sequence[int]) -> dict[str, Captioned]:
    """Returns the figures by name.

    Arguments:
        lines: The models.
        shape: The shape of an example.
    """
    # Numbers are means over seeds, of models of which none diverged.
    whole = {name: line for name, line in lines.items() if all(one.numbers for one in line.seeds)}
    known = {name: _pairs(whole, pairs) for name, (pairs, _) in PLANES.items()}
    found = {name: _plane(whole, name, pairs) for name, pairs in known.items() if pairs}
    if is_picture(shape):
        found |= {"gradients": _gradients(whole, shape), "samples": _samples(whole, shape)}
    return found


def _point(line: Line, metric: str) -> tuple[float, float]:
    """Returns the mean over seeds and the half-width, 0 for one seed."""
    found = line.interval(metric)
    return found.value, float(np.nan_to_num(found.high - found.value))


def _pairs(lines: Lines, pairs: Sequence[Pair]) -> list[Pair]:
    """Returns the pairs of metrics that some model has; A1 and A3 need a reference a class."""
    drawn = [line for name, line in lines.items() if name in COLOURS]
    return [pair for pair in pairs
            if any(np.isfinite([_point(line, metric) for metric in pair]).all()
                   for line in drawn)]  # fmt: skip


def _plane(lines: Lines, figure_name: str, pairs: Sequence[Pair]) -> Captioned:
    figure, axes = panels(len(pairs), 3 + 3 * len(pairs), 4, squeeze=False)
    for axis, (x, y) in zip(axes[0], pairs, strict=True):
        for name in filter(lines.__contains__, COLOURS):
            (at, dx), (height, dy) = (_point(lines[name], metric) for metric in (x, y))
            axis.errorbar(at, height, xerr=dx, yerr=dy, fmt="o", color=COLOURS[name], label=name)
        axis.set(xlabel=x, ylabel=y)
    if figure_name == "gauge":
        for name, style in zip(BLIND.values(), ("--", ":"), strict=True):
            at = _point(lines[name], "A1")[0]
            axes[0, 0].axvline(at, color="black", ls=style, lw=1, label=name)
        axes[0, 0].axhline(_point(lines["baseline"], "A3")[0], color="black", lw=0.5)
    labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside right center", fontsize=8)
    return figure, f"{PLANES[figure_name][1]} Bars are 95 % intervals over seeds."


def _arrays(lines: Lines) -> dict[str, Mapping[str, np.ndarray]]:
    """Returns the arrays of the first seed of the models that are pictured."""
    return {name: lines[name].seeds[0].arrays for name in PICTURED if name in lines}


def _gradients(lines: Lines, shape: Sequence[int]) -> Captioned:
    found = _arrays(lines)
    rows = {"image": tiles(found["baseline"]["images"], shape, SHOWN)}
    rows |= {name: _signed(arrays["gradients"], shape) for name, arrays in found.items()}
    rows |= {f"{name}, centred": _signed(found[name]["centred"], shape)
             for name in ("baseline", "score") if name in found}  # fmt: skip
    figure, axes = panels(width=8, height=0.9 * len(rows), down=len(rows))
    for axis, (name, picture) in zip(axes, rows.items(), strict=True):
        axis.imshow(picture, cmap="gray" if name == "image" else "RdBu_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.grid(visible=False)
    return figure, (
        "Gradients of the true class's logit at test images, each on its own scale: red raises "
        "the logit, blue lowers it. Centred: less the mean over classes."
    )


def _signed(rows: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Returns signed images, summed over colours, as tiles: each on its own scale about 1/2."""
    grey = rows.reshape(len(rows), -1, *shape[-2:]).sum(1).reshape(len(rows), -1)
    most = np.abs(grey).max(1, keepdims=True)
    return tiles(0.5 + 0.5 * grey / np.where(most > 0, most, 1), shape[-2:], SHOWN)


def _samples(lines: Lines, shape: Sequence[int]) -> Captioned:
    found = _arrays(lines)
    down = -(-len(found) // 4)
    figure, axes = panels(4, height=2.3 * down, down=down)
    for axis, (name, arrays) in zip(axes.flat, found.items(), strict=False):
        show_tiles(axis, arrays["samples"], shape, 5)
        dense = lines[name].interval("samples/log density").value
        axis.set_title(f"{name}\nlog p / D = {dense:.2f}", fontsize=8)
    for axis in axes.flat:
        axis.axis("off")
    return figure, (
        "Pictures of activity maximization, and their mean log-density a dimension under the "
        "reference (nats)."
    )
