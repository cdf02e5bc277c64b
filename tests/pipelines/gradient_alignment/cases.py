"""What the tests of the study take: models by name, quick trainings, studies of given numbers."""

from pipelines.data.dataset import Dataset
from pipelines.gradient_alignment import fitting
from pipelines.gradient_alignment.config import AlignmentConfig, ClassifierConfig
from pipelines.gradient_alignment.over_seeds import Measured, lines
from pipelines.gradient_alignment.scales import models
from pipelines.tracking import metrics_log
from pipelines.tracking.reporter import Reporter

QUICK = ClassifierConfig(epochs=4, batch_size=64, regularizer={"name": "gnorm", "weight": 0.01})

QUALITY = [{"reference/accuracy": 0.97}]
"""What a reference flow reaches, for ``verdicts.conclude``."""


def by_name(**options):
    """Returns the models of a configuration by their names."""
    return {model.name: model for model in models(AlignmentConfig(**options))}


def fitted(digits, work, **changed):
    """Trains a classifier for a moment."""
    reporter = Reporter(work / metrics_log.FILE)
    return fitting.fit(QUICK.model_copy(update=changed), Dataset(digits), work, reporter)


def measured(name, seed, numbers):
    """Returns what a stage measured of a model of a seed."""
    model = by_name(seed=seed)[name]
    return Measured(model, numbers, "", [], [{"probe/trace": -1e5}], {}, 64)


def study(**tables):
    """Returns lines of three seeds, from metrics by model."""
    found = [
        measured(name, seed, {k: v + 1e-4 * seed for k, v in numbers.items()})
        for seed in range(3)
        for name, numbers in tables.items()
    ]
    return lines(found)


def verdict(found, start):
    """Returns the claim that begins so."""
    return next(claim for claim in found.claims if claim.claim.startswith(start))
