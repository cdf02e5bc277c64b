"""Figures of the study, each with its caption."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.gradient_alignment.comparisons import Study
from pipelines.gradient_alignment.models import BASELINE, BLIND
from pipelines.reporting.statistics import Interval
from pipelines.reporting.style import BASELINE as ORANGE
from pipelines.reporting.style import DATA, FLOW, Captioned, is_picture, panels, show_tiles, tiles

Arrays = Mapping[str, np.ndarray]
"""Images, gradients and ascended pictures of a model."""

ACROSS = 8
"""Test images in a row of gradients."""

COLOURS = {
    "baseline": DATA, "score": FLOW, "score-free": "#6fa3d8", "score-control": "#8a6fb3",
    "centred": "#00838f", "centred-control": "#7fb8bd", "blind-gaussian": "#777777",
    "gnorm": "#b39ddb", "anti": ORANGE, "paper-score": "#2a8c6a", "paper-control": "#7fc7ab",
    "paper-anti": "#e0a13a", "fool-shift": "#c2185b", "code-score": "#8c6d31",
    "code-control": "#c7a76b",
}  # fmt: skip
"""The models in planes of two metrics."""

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
        (("A3", "PP/own/centred"), ("A1", "PP/own/raw"), ("A1", "DSM-cos")),
        "What may follow alignment: mean accuracy while the least salient pixels are filled in, "
        "by centred and by raw gradients, and the DSM cosine.",
    ),
}  # fmt: skip
"""Pairs of metrics, one a panel, and the caption."""

PICTURED = ("baseline", "blind-gaussian", "score", "score-control", "centred", "anti",
            "paper-score")  # fmt: skip
"""The models whose gradients and ascended pictures are shown."""


def figures(study: Study, shape: Sequence[int]) -> dict[str, Captioned]:
    """Returns the figures of examples with a shape, by name."""
    made = {}
    for name, (pairs, caption) in PLANES.items():
        present = [pair for pair in pairs if _measured(study, *pair)]
        if present:
            made[name] = _plane(study, present, caption, gauge=name == "gauge")
    pictures = {name: study.arrays[name] for name in PICTURED
                if "images" in study.arrays.get(name, ())}  # fmt: skip
    if is_picture(shape) and pictures:
        made |= {"gradients": _gradients(pictures, shape),
                 "samples": _samples(study, pictures, shape)}  # fmt: skip
    return made


def _measured(study: Study, *metrics: str) -> list[str]:
    """Returns the models to draw, which have the metrics with all seeds."""
    known = study.numbers.reindex(columns=metrics).notna().all(axis=1).groupby("model").all()
    return [name for name in COLOURS if known.get(name, False)]


def _plane(
    study: Study, pairs: Sequence[tuple[str, str]], caption: str, *, gauge: bool
) -> Captioned:
    """Draws the models by pairs of metrics, one panel each."""
    figure, axes = panels(len(pairs), 3 + 3 * len(pairs), 4, squeeze=False)
    for axis, (x, y) in zip(axes[0], pairs, strict=True):
        for name in _measured(study, x, y):
            (at, dx), (height, dy) = (_bar(study.interval(metric, name)) for metric in (x, y))
            axis.errorbar(at, height, xerr=dx, yerr=dy, fmt="o", color=COLOURS[name], label=name)
        axis.set(xlabel=x, ylabel=y)
    if gauge:
        for name, style in zip(BLIND.values(), ("--", ":"), strict=True):
            at = study.interval("A1", name).value
            axes[0, 0].axvline(at, color="black", ls=style, lw=1, label=name)
        axes[0, 0].axhline(study.interval("A3", BASELINE).value, color="black", lw=0.5)
    labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside right center", fontsize=8)
    return figure, f"{caption} Bars are 95 % intervals over seeds."


def _bar(mean: Interval) -> tuple[float, float]:
    """Returns a mean and half of its interval, 0 for one seed."""
    return mean.value, float(np.nan_to_num(mean.high - mean.value))


def _gradients(pictures: Mapping[str, Arrays], shape: Sequence[int]) -> Captioned:
    images = next(iter(pictures.values()))["images"]
    rows = {"image": tiles(images, shape, ACROSS)}
    rows |= {name: _signed(arrays["gradients"], shape) for name, arrays in pictures.items()}
    rows |= {f"{name}, centred": _signed(pictures[name]["centred"], shape)
             for name in (BASELINE, "score") if name in pictures}  # fmt: skip
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
    return tiles(0.5 + 0.5 * grey / np.where(most > 0, most, 1), shape[-2:], ACROSS)


def _samples(study: Study, pictures: Mapping[str, Arrays], shape: Sequence[int]) -> Captioned:
    down = -(-len(pictures) // 4)
    figure, axes = panels(4, height=2.3 * down, down=down)
    for axis, (name, arrays) in zip(axes.flat, pictures.items(), strict=False):
        show_tiles(axis, arrays["samples"], shape, 5)
        log_density = study.interval("samples/log density", name).value
        axis.set_title(f"{name}\nlog p / D = {log_density:.2f}", fontsize=8)
    for axis in axes.flat:
        axis.axis("off")
    return figure, (
        "Pictures of activity maximization, and their mean log-density a dimension under the "
        "reference (nats)."
    )
