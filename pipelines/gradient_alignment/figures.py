"""Figures of the study: planes of metrics, gradients, ascended pictures and curves."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.gradient_alignment import search
from pipelines.gradient_alignment.config import SIGMAS
from pipelines.gradient_alignment.fooled import fooled_pictures
from pipelines.gradient_alignment.measure import FRACTIONS
from pipelines.gradient_alignment.models import BASELINE, BLIND, MODELS
from pipelines.gradient_alignment.questions import Study
from pipelines.reporting.statistics import Interval
from pipelines.reporting.style import BASELINE as ORANGE
from pipelines.reporting.style import (
    DATA,
    FLOW,
    Captioned,
    is_picture,
    panels,
    show_tiles,
    signed,
    tiles,
)

Arrays = Mapping[str, np.ndarray]  # Images, gradients and ascended pictures of a model

ACROSS = 8  # Test images in a row of gradients

# The models in planes of two metrics.
COLOURS = {
    "baseline": DATA, "score": FLOW, "score-free": "#6fa3d8", "score-control": "#8a6fb3",
    "centred": "#00838f", "centred-control": "#7fb8bd", "blind-gaussian": "black",
    "gnorm": "#b39ddb", "anti": ORANGE, "paper-score": "#2a8c6a", "paper-control": "#7fc7ab",
    "paper-anti": "#e0a13a", "paper-gnorm": "#9575cd", "fool-shift": "#c2185b",
    "fool-weights": "#e57399", "fool-ripple": "#7b1fa2", "code-score": "#8c6d31",
    "code-control": "#c7a76b", "colour-score": FLOW,
    "colour-control": "#8a6fb3", "custom": "#d32f2f", "custom-control": "#ef9a9a",
}  # fmt: skip

# The baseline with something added to its logits.
UNTRAINED = [name for name, model in MODELS.items() if model.shift != "none"]

# Metrics of density ratios, with their titles, and curves of pixel perturbation.
RATIOS = {"log mean ratio": "log of the mean ratio", "mean log ratio": "mean of the log ratio"}
CURVES = ("curve/own/raw", "curve/other/raw", "curve/own/centred")

# Pairs of metrics, one a panel, and the caption.
PLANES = {
    "gauge": (
        (("A1", "A3"),),
        "A1, which a shift of all logits moves, and A3, which none moves. Up to the vertical "
        "lines A1 is had by a class-blind Gaussian or flow on the baseline's logits, which moves "
        "along the horizontal line.",
    ),
    "trade-off": (
        (("A1", "accuracy"), ("gradient", "A3"), ("DSM-cos", "accuracy")),
        "What alignment costs in test accuracy, and how long the gradients are.",
    ),
    "follows": (
        (("A3", "PP/own/centred"), ("A1", "PP/own/raw"), ("A1", "DSM-cos")),
        "What may follow alignment: mean accuracy while the least salient pixels are filled in, "
        "by centred and by raw gradients, and the DSM cosine.",
    ),
}  # fmt: skip

# The models whose gradients and ascended pictures are shown.
PICTURED = ("baseline", "blind-gaussian", "score", "score-control", "centred", "anti",
            "paper-score", "colour-score", "colour-control", "custom")  # fmt: skip


def figures(study: Study, shape: Sequence[int]) -> dict[str, Captioned]:
    """Returns the figures of examples with a shape, by name."""
    made = fooled_pictures(study.arrays, shape) if is_picture(shape) else {}
    if _measured(study, *(f"{kind}/{sigma:g}" for kind in RATIOS for sigma in SIGMAS)):
        made["density-ratio"] = _density_ratios(study)
    if any(CURVES[0] in arrays for arrays in study.arrays.values()):
        made["perturbation"] = _perturbation(study)
    for name, (pairs, caption) in PLANES.items():
        present = [pair for pair in pairs if _measured(study, *pair)]
        if present:
            made[name] = _plane(study, present, caption, gauge=name == "gauge")
    if any(model.cell is not None for model in study.models.values()):
        made["search"] = search.figure(study)
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
            axis.errorbar(at, height, xerr=dx, yerr=dy, label=name, **_marker(name))
        axis.set(xlabel=x, ylabel=y)
    if gauge:
        for name, style in zip(BLIND.values(), ("--", ":"), strict=True):
            at = study.interval("A1", name).value
            axes[0, 0].axvline(at, color="black", ls=style, lw=1, label=name)
        axes[0, 0].axhline(study.interval("A3", BASELINE).value, color="black", lw=0.5)
    _legend(figure, axes[0, 0])
    return figure, f"{caption} Bars are 95 % intervals over seeds."


def _marker(name: str) -> dict[str, str]:
    """Returns the colour and the marker of a model: those that train nothing have a diamond."""
    return {"fmt": "D" if name in UNTRAINED else "o", "color": COLOURS[name]}


def _bar(mean: Interval) -> tuple[float, float]:
    """Returns a mean and half of its interval, 0 for one seed."""
    return mean.value, float(np.nan_to_num(mean.high - mean.value))


def _density_ratios(study: Study) -> Captioned:
    """Draws both density ratios of every model by the noise."""
    figure, axes = panels(len(RATIOS), 9, 3.6)
    for axis, (kind, title) in zip(axes, RATIOS.items(), strict=True):
        names = [f"{kind}/{sigma:g}" for sigma in SIGMAS]
        for model in _measured(study, *names):
            means = [study.interval(name, model).value for name in names]
            axis.plot(SIGMAS, means, marker=".", **_line(model))
        axis.axhline(0, color="black", lw=0.5)
        axis.set(xlabel="standard deviation of the noise", title=title, ylabel="nats")
        axis.set_yscale("symlog", linthresh=1)
    _legend(figure, axes[0])
    return figure, (
        "Density ratio of noisy and clean test images, p(x + η | y) / p(x | y). Above 0 a "
        "classifier takes the noisy image for the denser one. Outliers dominate the mean. Means "
        "over seeds."
    )


def _perturbation(study: Study) -> Captioned:
    """Draws accuracies by the share of the least salient pixels that are filled in."""
    figure, axes = panels(len(CURVES), 3.6 * len(CURVES), 3.4, sharey=True)
    for axis, curve in zip(axes, CURVES, strict=True):
        for model in COLOURS:
            if curve in study.arrays.get(model, ()):
                axis.plot(FRACTIONS, study.arrays[model][curve], **_line(model))
        axis.set(xlabel="share of pixels filled in", title=curve.removeprefix("curve/"))
    axes[0].set_ylabel("accuracy")
    _legend(figure, axes[0])
    return figure, (
        "Accuracy while the least salient pixels are filled in with the image's mean, with the "
        "first seed; higher is better. The model itself (own) or a network of another "
        "architecture (other) judges, by raw or class-mean-centred gradients."
    )


def _line(model: str) -> dict[str, str]:
    """Returns colour, style and label of a model's curve: dashed if it trains nothing."""
    style = "--" if model in UNTRAINED else "-"
    return {"color": COLOURS[model], "ls": style, "label": model}


def _legend(figure: Figure, axis: Axes) -> None:
    """Draws the legend of an axis on the right of all axes."""
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", fontsize=8)


def _strips(rows: Mapping[str, np.ndarray]) -> Figure:
    """Draws strips of tiles below each other, with their names on the left."""
    figure, axes = panels(
        2, 9.5, 0.9 * len(rows), down=len(rows), squeeze=False, width_ratios=[1.5, 8]
    )
    for (left, axis), (name, picture) in zip(axes, rows.items(), strict=True):
        left.text(0.95, 0.5, name, ha="right", va="center", transform=left.transAxes)
        axis.imshow(picture, cmap="gray" if name == "image" else "RdBu_r", vmin=0, vmax=1)
        left.axis("off")
        axis.axis("off")
    return figure


def _gradients(pictures: Mapping[str, Arrays], shape: Sequence[int]) -> Captioned:
    images = next(iter(pictures.values()))["images"]
    rows = {"image": tiles(images, shape, ACROSS)}
    rows |= {name: signed(arrays["gradients"], shape, ACROSS) for name, arrays in pictures.items()}
    rows |= {f"{name}, centred": signed(pictures[name]["centred"], shape, ACROSS)
             for name in (BASELINE, "score") if name in pictures}  # fmt: skip
    return _strips(rows), (
        "Gradients of the true class's logit at test images, each on its own scale: red raises "
        "the logit, blue lowers it. Centred: less the mean over classes."
    )


def _samples(study: Study, pictures: Mapping[str, Arrays], shape: Sequence[int]) -> Captioned:
    across = min(4, len(pictures))
    down = -(-len(pictures) // across)
    figure, axes = panels(across, 2 * across, 2.3 * down, down=down, squeeze=False)
    for axis, (name, arrays) in zip(axes.flat, pictures.items(), strict=False):
        show_tiles(axis, arrays["samples"], shape, 5)
        axis.set_title(f"{name}\n{_judged(study, name)}", fontsize=8)
    for axis in axes.flat:
        axis.axis("off")
    return figure, (
        "Pictures of activity maximization, and their mean log-density a dimension under the "
        "reference (nats), or the share that another network recognizes."
    )


def _judged(study: Study, name: str) -> str:
    """Returns what is known of a model's pictures, as text."""
    if "samples/log density" in study.numbers:
        return f"log p / D = {study.interval('samples/log density', name).value:.2f}"
    return f"GAN-test = {study.interval('GAN-test', name).value:.2f}"
