"""Writes the table of models, the claims, the figures and the page from all measurements."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.manifest import Manifest
from pipelines.gradient_alignment import rows
from pipelines.gradient_alignment.config import AlignmentConfig
from pipelines.gradient_alignment.figures import figures
from pipelines.gradient_alignment.models import models
from pipelines.gradient_alignment.questions import Study, conclude
from pipelines.gradient_alignment.tables import headline, tables
from pipelines.reporting.result import Result, plots
from pipelines.reporting.statistics import Interval, student
from pipelines.tracking.run import StageRun


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
    reference = _reference(quality, study.overlap)
    conclusion = conclude(study, quality)
    of_paper = rows.rows(study.models)
    conclusion = rows.with_items(conclusion, of_paper)
    Result(
        title="Gradient alignment",
        intro=intro(config),
        conclusion=conclusion,
        headline=headline(study),
        facts={name: text for name, text in study.diagnoses.items() if text},
        sections=[*plots(figures(study, shape)), *tables(study, reference)],
        metrics=metrics(study, reference),
        values={
            "models": [entry(study, name) for name in study.models],
            "reference": {name: one._asdict() for name, one in reference.items()},
            "rows": rows.entries(conclusion, of_paper),
        },
    ).save(config, run)


def _reference(quality: Sequence[Mapping[str, float]], overlap: float) -> dict[str, Interval]:
    """Returns the means of the reference's numbers over seeds; none without a reference."""
    names = quality[0] if quality else ()
    return {
        name: student([one[name] for one in quality], overlap=overlap).interval() for name in names
    }


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
    what = (
        f"Gradients of the true-class logits of classifiers of {config.data.source}, "
        "which are scores of an implicit class-conditional density"
    )
    if config.reference.kind == "none":
        return (
            f"{what}. There is no reference. DSM-cos is the cosine with −ε, for the noise ε of a "
            f"standard deviation of {config.noise:g} on an image: the score of the smoothed data "
            "is the mean of −ε / s. Intervals are over seeds, each with its own noise, judge and "
            "classifiers."
        )
    return (
        f"{what}, beside the exact scores of "
        f"reference flows of the data smoothed by noise of {config.noise:g}. A1 is the cosine "
        "with the score of the class, A2 that of the marginals, A3 that of class-mean-centred "
        "gradients, which no shift of the logits moves. A1 is compared with that of the baseline "
        "with a class-blind density on every logit. Intervals are over seeds, each with its own "
        "split, flows, points, judge and classifiers; they allow for overlapping splits."
    )
