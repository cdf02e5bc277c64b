"""Models by name, quick trainings, and studies with chosen numbers."""

from pipelines.gradient_alignment.config import AlignmentConfig, ClassifierConfig
from pipelines.gradient_alignment.models import models
from pipelines.gradient_alignment.questions import Study

QUICK = ClassifierConfig(epochs=4, batch_size=64, regularizer={"name": "gnorm", "weight": 0.01})


def by_name(**options):
    """Returns the models of a configuration by their names."""
    return models(AlignmentConfig(**options))


def studied(*, seeds=3, overlap=0.0, diagnoses=(), lost=(), arrays=None, **numbers):
    """Returns a study from metrics by model, which grow a little from seed to seed.

    ``diagnoses`` are by model; of ``lost``, pairs of a model and a seed, there are no numbers.
    """
    some = {name: by_name()[name] for name in numbers}
    outcomes = [
        {"numbers": {} if (name, seed) in lost else {k: v + 1e-4 * seed for k, v in own.items()},
         "diagnosis": dict(diagnoses).get(name, "")}
        for seed in range(seeds) for name, own in numbers.items()
    ]  # fmt: skip
    return Study.of(some, outcomes, [arrays or {}] * len(some), width=64, overlap=overlap)
