"""Writes the table of models, the claims, the figures and the page from all measurements."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.manifest import Manifest
from pipelines.gradient_alignment.config import SIGMAS, AlignmentConfig
from pipelines.gradient_alignment.models import BASELINE, BLIND, models
from pipelines.gradient_alignment.questions import Study, conclude
from pipelines.reporting.result import Result, Table, plots, plus_minus
from pipelines.reporting.statistics import Interval, student
from pipelines.reporting.style import BASELINE as ORANGE
from pipelines.reporting.style import DATA, FLOW, Captioned, is_picture, panels, show_tiles, tiles
from pipelines.tracking.run import StageRun

Column = tuple[str, str, int]  # A metric in a table, its heading, and its decimals

# The columns of the table of models.
COLUMNS: Sequence[Column] = (
    ("accuracy", "accuracy", 3),
    ("gradient", "‖g‖", 2),
    ("trace", "tr H", 0),
    ("A1", "A1", 3),
    ("A1/over gaussian", "A1 over Gaussian", 3),
    ("A1/over flow", "A1 over flow", 3),
    ("A2", "A2", 3),
    ("A3", "A3", 3),
    ("A1/centred", "A1 centred", 3),
    ("DSM-cos", "DSM-cos", 3),
    ("relF-opt/centred", "relF-opt centred", 3),
    ("GAN-test", "GAN-test", 2),
    ("samples/log density", "log p / D", 2),
    ("PP/own/raw", "PP own", 3),
    ("PP/own/centred", "PP centred", 3),
    ("PP/other/raw", "PP other", 3),
    ("PP/other/centred", "PP other, centred", 3),
)

# The metrics on a terminal.
BRIEF = ("accuracy", "gradient", "A1", "A1/over gaussian", "A1/over flow", "A3", "PP/own/raw")

# The columns of the table of density ratios.
RATIOS = [(f"{kind}/{sigma:g}", f"{kind}, {sigma:g}", 2)
          for kind in ("mean log ratio", "log mean ratio") for sigma in SIGMAS]  # fmt: skip

NOTE = "Means over seeds ± 95 % intervals."
METRICS = (
    " A1 over: less that of the baseline of the seed with the class-blind density on every logit; "
    "A1 centred: of the centred gradient with the class's whole score. PP: mean accuracy while "
    "the least salient pixels are filled in, by own or class-mean-centred gradients, judged by "
    "the model or a network of another architecture (as the GAN-test is); log p / D: log-density "
    "of ascended pictures under the reference, nats a dimension."
)
OF_RATIOS = (
    "log p(x + η | y) − log p(x | y) in nats, by deviation of the noise η: the mean of the "
    "logarithm, and the logarithm of the mean, which outliers dominate. Means over seeds ± 95 % "
    "intervals. Above 0 the noisy image is taken for the denser one."
)


def align(
    config: AlignmentConfig,
    data: Sequence[Path],
    densities: Sequence[Path],
    measured: Sequence[Path],
    *,
    run: StageRun,
) -> None:
    """Saves the result of the study.

    ``data`` and ``densities`` are those of every seed. ``measured`` are the measurements of all
    models of the first seed, then of the next.
    """
    manifests = [Manifest.load(folder) for folder in data]
    quality = [json.loads((folder / "evaluation.json").read_text()) for folder in densities]
    outcomes = [json.loads((folder / "numbers.json").read_text()) for folder in measured]
    some, shape, width = models(config), manifests[0].shape, manifests[0].width
    arrays = [dict(np.load(folder / "arrays.npz")) for folder in measured[: len(some)]]
    study = Study.of(some, outcomes, arrays, width=width, overlap=_overlap(manifests))
    reference = {
        name: student([one[name] for one in quality], overlap=study.overlap).interval()
        for name in quality[0]
    }
    Result(
        title="Gradient alignment",
        intro=intro(config),
        conclusion=conclude(study, quality),
        headline=_by_model("Models", study, [c for c in COLUMNS if c[0] in BRIEF], NOTE),
        facts={name: text for name, text in study.diagnoses.items() if text},
        sections=[*plots(figures(study, shape)), *tables(study, reference)],
        metrics=metrics(study, reference),
        values={
            "models": [entry(study, name) for name in study.models],
            "reference": {name: one._asdict() for name, one in reference.items()},
        },
    ).save(config, run)


def _overlap(manifests: Sequence[Manifest]) -> float:
    """Returns test rows over training rows if every seed has its own test rows; else 0."""
    tests = {tuple(shard.sha256 for shard in one.of("test")) for one in manifests}
    counts = manifests[0].counts
    return counts["test"] / counts["train"] if len(tests) > 1 else 0.0


def metrics(study: Study, reference: Mapping[str, Interval]) -> dict[str, float]:
    """Returns every model's means and the reference's, as in MLflow."""
    means = {
        f"{name}/{metric}": study.interval(metric, name).value
        for name in study.models
        for metric in study.metrics(name)
    } | {name: interval.value for name, interval in reference.items()}
    return {f"study/{name.replace(' ', '_')}": mean for name, mean in means.items()}


def entry(study: Study, name: str) -> dict[str, Any]:
    """Returns a model as in ``summary.json``."""
    model = study.models[name]
    regularizer = model.classifier.regularizer
    metrics = {metric: study.interval(metric, name)._asdict() for metric in study.metrics(name)}
    return {
        "model": name,
        "about": model.about,
        "regularizer": regularizer.name,
        "weight": regularizer.weight,
        "seeds": study.seeds,
        "diagnosis": study.diagnoses[name],
        "metrics": metrics,
    }


def intro(config: AlignmentConfig) -> str:
    """Returns the introduction of the page."""
    return (
        f"Gradients of the true-class logits of classifiers of {config.data.source}, "
        "which are scores of an implicit class-conditional density, beside the exact scores of "
        f"reference flows of the data smoothed by noise of {config.noise:g}. A1 is the cosine "
        "with the score of the class, A2 that of the marginals, A3 that of class-mean-centred "
        "gradients, which no shift of the logits moves. A1 is compared with that of the baseline "
        "with a class-blind density on every logit. Intervals are over seeds, each with its own "
        "split, flows, points, judge and classifiers; they allow for overlapping splits."
    )


def tables(study: Study, reference: Mapping[str, Interval]) -> list[Table]:
    """Returns the tables of the page."""
    return [
        _by_model("Models", study, COLUMNS, NOTE + METRICS),
        _by_model("Density ratios of noisy and clean test images", study, RATIOS, OF_RATIOS),
        Table(
            "What the models are",
            ("model", "about", "λ", "diagnosis"),
            [(name, model.about, f"{model.classifier.regularizer.weight:.3g}",
              study.diagnoses[name]) for name, model in study.models.items()],
        ),
        Table(
            "Reference flows and class-blind densities",
            ("quantity", "value"),
            [(name.removeprefix("reference/"), plus_minus(one, 4))
             for name, one in reference.items()],
            f"{NOTE} Log-densities: nats a dimension, at noisy points.",
        ),
    ]  # fmt: skip


def _by_model(title: str, study: Study, columns: Sequence[Column], note: str) -> Table:
    """Returns a table with a row for each model, without columns that no model has."""
    measured = [column for column in columns if column[0] in study.numbers]
    rows = [
        (
            name,
            *(plus_minus(study.interval(metric, name), digits) for metric, _, digits in measured),
        )
        for name in study.models
    ]
    return Table(title, ("model", *(heading for _, heading, _ in measured)), rows, note)


Arrays = Mapping[str, np.ndarray]  # Images, gradients and ascended pictures of a model

ACROSS = 8  # Test images in a row of gradients

# The models in planes of two metrics.
COLOURS = {
    "baseline": DATA, "score": FLOW, "score-free": "#6fa3d8", "score-control": "#8a6fb3",
    "centred": "#00838f", "centred-control": "#7fb8bd", "blind-gaussian": "#777777",
    "gnorm": "#b39ddb", "anti": ORANGE, "paper-score": "#2a8c6a", "paper-control": "#7fc7ab",
    "paper-anti": "#e0a13a", "fool-shift": "#c2185b", "code-score": "#8c6d31",
    "code-control": "#c7a76b",
}  # fmt: skip

# Pairs of metrics, one a panel, and the caption.
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

# The models whose gradients and ascended pictures are shown.
PICTURED = ("baseline", "blind-gaussian", "score", "score-control", "centred", "anti",
            "paper-score")  # fmt: skip


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
