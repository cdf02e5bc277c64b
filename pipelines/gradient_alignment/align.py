"""Writes the table of models, the claims, the figures and the page from all measurements."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.manifest import Manifest
from pipelines.gradient_alignment.comparisons import Study
from pipelines.gradient_alignment.config import SIGMAS, AlignmentConfig
from pipelines.gradient_alignment.figures import figures
from pipelines.gradient_alignment.models import models
from pipelines.gradient_alignment.questions import conclude
from pipelines.reporting.result import Result, Table, plots, plus_minus
from pipelines.reporting.statistics import Interval, student
from pipelines.tracking.run import StageRun

Column = tuple[str, str, int]
"""A metric in a table, its heading, and its decimals."""

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
"""The columns of the table of models."""

BRIEF = ("accuracy", "gradient", "A1", "A1/over gaussian", "A1/over flow", "A3", "PP/own/raw")
"""The metrics on a terminal."""

RATIOS = [(f"{kind}/{sigma:g}", f"{kind}, {sigma:g}", 2)
          for kind in ("mean log ratio", "log mean ratio") for sigma in SIGMAS]  # fmt: skip
"""The columns of the table of density ratios."""

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
