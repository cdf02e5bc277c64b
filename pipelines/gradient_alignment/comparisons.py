"""The measured models of a study, and numbers that compare them, one value a seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from pipelines.gradient_alignment.models import BASELINE, BLIND, Model
from pipelines.reporting.statistics import Confidence, Interval, student

FEWEST = 8
"""The least number of sound trainings whose order is judged."""


@dataclass(frozen=True)
class Study:
    """The measured models.

    Attributes:
        models: The models with the first seed, by name.
        numbers: Each model's metrics, an array over seeds each; NaN for a seed that diverged.
        diagnoses: The first diagnosis of a model that collapsed or diverged with some seed.
        arrays: Images, gradients and ascended pictures of the first seed, by model.
        seeds: The number of seeds.
        width: The dimensions of the data.
        overlap: Test rows over training rows if seeds split the same rows; else 0.
    """

    models: Mapping[str, Model]
    numbers: Mapping[str, Mapping[str, np.ndarray]]
    diagnoses: Mapping[str, str]
    arrays: Mapping[str, Mapping[str, np.ndarray]]
    seeds: int
    width: int
    overlap: float = 0.0

    def values(self, metric: str, model: str) -> np.ndarray:
        """Returns a metric of a model seed by seed."""
        return self.numbers[model].get(metric, np.full(self.seeds, np.nan))

    def interval(self, metric: str, model: str) -> Interval:
        """Returns the mean of a metric over seeds with Student's 95 % interval."""
        return student(self.values(metric, model), overlap=self.overlap).interval()

    @property
    def trainings(self) -> list[str]:
        """The names of sound models that were trained, not shifted; none if they are too few."""
        sound = [name for name, model in self.models.items()
                 if model.shift.name == "none" and name not in self.diagnoses]  # fmt: skip
        return sound if len(sound) >= FEWEST else []


def study(
    models: Sequence[Model],
    outcomes: Sequence[Mapping[str, Any]],
    arrays: Sequence[Mapping[str, np.ndarray]],
    *,
    width: int,
    overlap: float = 0.0,
) -> Study:
    """Returns the study of models, and adds A1 over that of the class-blind models.

    Arguments:
        models: The models with the first seed.
        outcomes: ``numbers`` and ``diagnosis`` of all models with the first seed, then the next.
        arrays: The arrays of the models with the first seed.
        width: The dimensions of the data.
        overlap: Test rows over training rows if seeds split the same rows; else 0.
    """
    names = [model.name for model in models]
    seeds = {name: outcomes[k :: len(names)] for k, name in enumerate(names)}
    numbers = {name: _over_seeds([one["numbers"] for one in own]) for name, own in seeds.items()}
    for shift, blind in BLIND.items():
        gauge = numbers.get(blind, {}).get("A1")
        for metrics in numbers.values():
            if gauge is not None and "A1" in metrics:
                metrics[f"A1/over {shift}"] = metrics["A1"] - gauge
    first = {name: next(filter(None, (one["diagnosis"] for one in own)), "")
             for name, own in seeds.items()}  # fmt: skip
    diagnoses = {name: diagnosis for name, diagnosis in first.items() if diagnosis}
    by_name = dict(zip(names, models, strict=True))
    pictures = dict(zip(names, arrays, strict=True))
    count = len(outcomes) // len(names)
    return Study(by_name, numbers, diagnoses, pictures, count, width, overlap)


def _over_seeds(seeds: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    metrics = sorted({metric for numbers in seeds for metric in numbers})
    return {m: np.array([numbers.get(m, np.nan) for numbers in seeds]) for m in metrics}


@dataclass(frozen=True)
class Number:
    """A number that compares models.

    Attributes:
        quantity: Its description.
        models: The names of the models; none: all sound trainings.
        compute: A function from a study to one value a seed.
    """

    quantity: str
    models: tuple[str, ...]
    compute: Callable[[Study], np.ndarray]

    def known(self, study: Study) -> bool:
        """Returns True if its models were measured."""
        return set(self.models) <= study.models.keys() and bool(self.models or study.trainings)

    def mean(self, study: Study) -> Confidence | None:
        """Returns its mean over seeds; None if a seed has no value."""
        values = self.compute(study)
        return student(values, overlap=study.overlap) if np.isfinite(values).all() else None


def of(metric: str, model: str, quantity: str) -> Number:
    """Returns a metric of a model."""
    return Number(quantity, (model,), lambda study: study.values(metric, model))


def less(metric: str, model: str, other: str, quantity: str = "") -> Number:
    """Returns a metric of a model less that of another."""
    plain = f"{metric} of {model} less that of {other}"
    return Number(
        f"{quantity}, {model} less {other}" if quantity else plain,
        (model, other),
        lambda study: study.values(metric, model) - study.values(metric, other),
    )


def ratio(model: str, other: str) -> Number:
    """Returns ‖g‖ of a model over that of another."""
    return Number(
        f"‖g‖ of {model} over that of {other}",
        (model, other),
        lambda study: study.values("gradient", model) / study.values("gradient", other),
    )


def share(metric: str, part: str, whole: str, quantity: str) -> Number:
    """Returns the change of a metric from the baseline to one model over that to another."""

    def compute(study: Study) -> np.ndarray:
        start = study.values(metric, BASELINE)
        return (study.values(metric, part) - start) / (study.values(metric, whole) - start)

    return Number(quantity, (BASELINE, part, whole), compute)


def changed(quantity: str, *shifted: str) -> Number:
    """Returns the largest change of A3 and share of changed predictions of shifted baselines."""

    def compute(study: Study) -> np.ndarray:
        a3 = study.values("A3", BASELINE)
        changes = [np.abs(study.values("A3", name) - a3) + 1 - study.values("change/same", name)
                   for name in shifted]  # fmt: skip
        return np.max(changes, axis=0)

    return Number(quantity, (BASELINE, *shifted), compute)


def _ranks(study: Study, metric: str) -> np.ndarray:
    """Returns ranks of trainings with shape (seeds, models); NaN for a seed without an order."""
    values = np.array([study.values(metric, name) for name in study.trainings]).T
    ordered = np.isfinite(values).all(1) & (np.ptp(values, axis=1) > 0)
    return np.where(ordered[:, None], stats.rankdata(values, axis=1), np.nan)


def order(one: str, other: str) -> Number:
    """Returns the rank correlation of two metrics over all sound trainings."""

    def compute(study: Study) -> np.ndarray:
        a, b = (stats.zscore(_ranks(study, metric), axis=1) for metric in (one, other))
        return (a * b).mean(1)

    return Number("rank correlation over these models", (), compute)
