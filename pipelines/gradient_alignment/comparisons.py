"""The measured models of a study, and numbers that compare them, one value a seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy import stats

from pipelines.gradient_alignment.models import BASELINE, BLIND, Model
from pipelines.reporting.statistics import Confidence, Interval, student

FEWEST = 8
"""The least number of sound trainings whose order is judged."""

Outcome = Mapping[str, Any]
"""The ``numbers`` of a model with a seed, none if it diverged, and its ``diagnosis``."""


@dataclass(frozen=True)
class Study:
    """The measured models.

    Attributes:
        models: The models with the first seed, by name.
        seeds: The outcomes of all models, seed by seed.
        arrays: Images, gradients and ascended pictures of the first seed, by model.
        width: The dimensions of the data.
        overlap: Test rows over training rows if seeds split the same rows; else 0.
    """

    models: Mapping[str, Model]
    seeds: Sequence[Mapping[str, Outcome]]
    arrays: Mapping[str, Mapping[str, np.ndarray]]
    width: int
    overlap: float = 0.0

    def values(self, metric: str, model: str) -> np.ndarray:
        """Returns a metric of a model seed by seed; NaN if it diverged or lacks the metric."""
        return np.array([seed[model]["numbers"].get(metric, np.nan) for seed in self.seeds])

    def interval(self, metric: str, model: str) -> Interval:
        """Returns the mean of a metric over seeds with Student's 95 % interval."""
        return self.mean(self.values(metric, model)).interval()

    def mean(self, values: np.ndarray) -> Confidence:
        """Returns the mean of values, one a seed."""
        return student(values, overlap=self.overlap)

    def metrics(self, model: str) -> list[str]:
        """Returns the names of a model's metrics."""
        return sorted({metric for seed in self.seeds for metric in seed[model]["numbers"]})

    def diagnosis(self, model: str) -> str:
        """Returns the first diagnosis of a collapse or divergence; empty if there is none."""
        return next(filter(None, (seed[model]["diagnosis"] for seed in self.seeds)), "")

    @property
    def trainings(self) -> list[str]:
        """The names of sound models that were trained, not shifted.

        Raises:
            KeyError: If they are too few to judge their order.
        """
        sound = [name for name, model in self.models.items()
                 if model.shift == "none" and not self.diagnosis(name)]  # fmt: skip
        if len(sound) < FEWEST:
            raise KeyError("sound trainings")
        return sound


def study(
    models: Sequence[Model],
    outcomes: Sequence[Outcome],
    arrays: Sequence[Mapping[str, np.ndarray]],
    *,
    width: int,
    overlap: float = 0.0,
) -> Study:
    """Returns the study of models, and adds A1 over that of the class-blind models.

    Arguments as in ``Study``, as lists: outcomes of all models with the first seed, then with the
    next; models and their arrays with the first seed alone.
    """
    names = [model.name for model in models]
    starts = range(0, len(outcomes), len(names))
    seeds = [dict(zip(names, outcomes[k : k + len(names)], strict=True)) for k in starts]
    for (shift, blind), seed in product(BLIND.items(), seeds):
        for numbers in [one["numbers"] for one in seed.values()]:
            if blind in seed and "A1" in numbers.keys() & seed[blind]["numbers"].keys():
                numbers[f"A1/over {shift}"] = numbers["A1"] - seed[blind]["numbers"]["A1"]
    by_name = dict(zip(names, models, strict=True))
    return Study(by_name, seeds, dict(zip(names, arrays, strict=True)), width, overlap)


@dataclass(frozen=True)
class Number:
    """A number that compares models.

    Attributes:
        quantity: Its description.
        compute: Returns one value a seed; raises KeyError if a model was not measured.
    """

    quantity: str
    compute: Callable[[Study], np.ndarray]

    def values(self, study: Study) -> np.ndarray | None:
        """Returns one value a seed; None if a model was not measured."""
        try:
            return self.compute(study)
        except KeyError:
            return None


def of(metric: str, model: str, quantity: str) -> Number:
    """Returns a metric of a model."""
    return Number(quantity, lambda study: study.values(metric, model))


def less(metric: str, model: str, other: str, quantity: str = "") -> Number:
    """Returns a metric of a model less that of another."""
    plain = f"{metric} of {model} less that of {other}"
    return Number(
        f"{quantity}, {model} less {other}" if quantity else plain,
        lambda study: study.values(metric, model) - study.values(metric, other),
    )


def ratio(model: str, other: str) -> Number:
    """Returns ‖g‖ of a model over that of another."""
    return Number(
        f"‖g‖ of {model} over that of {other}",
        lambda study: study.values("gradient", model) / study.values("gradient", other),
    )


def share(metric: str, part: str, whole: str, quantity: str) -> Number:
    """Returns the change of a metric from the baseline to one model over that to another."""

    def compute(study: Study) -> np.ndarray:
        start = study.values(metric, BASELINE)
        return (study.values(metric, part) - start) / (study.values(metric, whole) - start)

    return Number(quantity, compute)


def changed(quantity: str, *shifted: str) -> Number:
    """Returns the largest change of A3 and share of changed predictions of shifted baselines."""

    def compute(study: Study) -> np.ndarray:
        a3 = study.values("A3", BASELINE)
        changes = [np.abs(study.values("A3", name) - a3) + 1 - study.values("change/same", name)
                   for name in shifted]  # fmt: skip
        return np.max(changes, axis=0)

    return Number(quantity, compute)


def order(one: str, other: str) -> Number:
    """Returns the rank correlation of two metrics over all sound trainings.

    It is NaN for a seed in which a metric is missing, or the same for all trainings.
    """

    def ranks(study: Study, metric: str) -> np.ndarray:
        values = np.array([study.values(metric, name) for name in study.trainings]).T
        ordered = np.isfinite(values).all(1) & (np.ptp(values, axis=1) > 0)
        return np.where(ordered[:, None], stats.rankdata(values, axis=1), np.nan)

    def compute(study: Study) -> np.ndarray:
        a, b = (stats.zscore(ranks(study, metric), axis=1) for metric in (one, other))
        return (a * b).mean(1)

    return Number("rank correlation over these models", compute)
