"""The measured models of a study, and numbers that compare them, one value a seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipelines.gradient_alignment.models import BASELINE, BLIND, Model
from pipelines.reporting.statistics import Confidence, Interval, rank_correlation, student

FEWEST = 8
"""The least number of sound trainings whose order is judged."""


@dataclass(frozen=True)
class Study:
    """The measured models.

    ``numbers`` have a metric in each column, and a row for each seed and model: NaN where the
    model diverged or lacks the metric. ``diagnoses`` are the first of a collapse or divergence,
    empty if there is none. ``overlap`` is test rows over training rows if seeds split the same
    rows, else 0.
    """

    models: Mapping[str, Model]  # with the first seed
    numbers: pd.DataFrame
    diagnoses: Mapping[str, str]  # by model
    arrays: Mapping[str, Mapping[str, np.ndarray]]  # of the first seed, for figures, by model
    width: int  # of the data
    overlap: float = 0.0

    @classmethod
    def of(
        cls,
        models: Mapping[str, Model],
        outcomes: Sequence[Mapping[str, Any]],
        arrays: Sequence[Mapping[str, np.ndarray]],
        *,
        width: int,
        overlap: float = 0.0,
    ) -> "Study":
        """Returns the study of models, and adds A1 over that of the class-blind models.

        ``outcomes`` have ``numbers`` and ``diagnosis`` of all models with the first seed, then
        with the next.
        """
        seeds = range(len(outcomes) // len(models))
        index = pd.MultiIndex.from_product([seeds, models], names=["seed", "model"])
        numbers = pd.DataFrame([one["numbers"] for one in outcomes], index, dtype=float)
        for shift, blind in BLIND.items():
            if blind in models and "A1" in numbers:
                a1 = numbers["A1"].xs(blind, level="model")
                numbers[f"A1/over {shift}"] = numbers["A1"].sub(a1, level="seed")
        diagnoses = dict.fromkeys(models, "")
        for name, one in zip(index.get_level_values("model"), outcomes, strict=True):
            diagnoses[name] = diagnoses[name] or one["diagnosis"]
        by_name = dict(zip(models, arrays, strict=True))
        numbers = numbers.dropna(axis=1, how="all")
        return cls(models, numbers, diagnoses, by_name, width, overlap)

    @property
    def seeds(self) -> int:
        """The number of seeds."""
        return len(self.numbers) // len(self.models)

    def values(self, metric: str, model: str) -> np.ndarray:
        """Returns a metric of a model seed by seed, NaN where it has none.

        Raises:
            KeyError: If the model was not measured.
        """
        return self.numbers.xs(model, level="model").reindex(columns=[metric])[metric].to_numpy()

    def interval(self, metric: str, model: str) -> Interval:
        """Returns the mean of a metric over seeds with Student's 95 % interval."""
        return self.mean(self.values(metric, model)).interval()

    def mean(self, values: np.ndarray) -> Confidence:
        """Returns the mean of values, one a seed."""
        return student(values, overlap=self.overlap)

    def metrics(self, model: str) -> list[str]:
        """Returns the names of a model's metrics."""
        return sorted(self.numbers.xs(model, level="model").dropna(axis=1, how="all"))

    @property
    def trainings(self) -> list[str]:
        """The names of sound models that were trained, not shifted.

        Raises:
            KeyError: If they are too few to judge their order.
        """
        sound = [name for name, model in self.models.items()
                 if model.shift == "none" and not self.diagnoses[name]]  # fmt: skip
        if len(sound) < FEWEST:
            raise KeyError("sound trainings")
        return sound


@dataclass(frozen=True)
class Number:
    """A number that compares models: its description, and a function to one value a seed.

    The function raises KeyError if a model was not measured.
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
    return Number(
        f"{quantity}, {model} less {other}" if quantity
        else f"{metric} of {model} less that of {other}",
        lambda study: study.values(metric, model) - study.values(metric, other),
    )  # fmt: skip


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

    def compute(study: Study) -> np.ndarray:
        pair = [
            np.stack([study.values(metric, name) for name in study.trainings], 1)
            for metric in (one, other)
        ]
        ordered = np.all([np.ptp(values, axis=1) > 0 for values in pair], axis=0)
        return np.where(ordered, rank_correlation(*pair), np.nan)

    return Number("rank correlation over these models", compute)
