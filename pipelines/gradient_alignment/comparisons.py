"""Numbers that compare measured models, from their lines: paired by seed, or ordered."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ebflow.alignment.regularisers import smallest_trace
from ebflow.inference import Confidence, bootstrap, student
from pipelines.gradient_alignment.models import BASELINE, BLIND
from pipelines.gradient_alignment.table import Line

Lines = Mapping[str, Line]

FEWEST = 8
"""Trainings from which on their order is looked at."""


@dataclass(frozen=True)
class Number:
    """A number of some models, with a value a seed.

    Attributes:
        quantity: What it is.
        models: The models that it takes.
        compute: From the lines of these to a value a seed.
    """

    quantity: str
    models: tuple[str, ...]
    compute: Callable[..., np.ndarray]

    def known(self, lines: Lines) -> bool:
        """Returns whether its models are there."""
        return set(self.models) <= lines.keys()

    def values(self, lines: Lines) -> np.ndarray:
        """Returns it seed by seed; NaN of a seed that diverged."""
        return self.compute(*(lines[name] for name in self.models))

    def found(self, lines: Lines) -> Confidence | None:
        """Returns the mean over seeds; None where one diverged or lacks the number."""
        values = self.values(lines)
        return student(values) if np.isfinite(values).all() else None


@dataclass(frozen=True)
class Order:
    """The rank correlation of two metrics over trainings, which are its units."""

    one: str
    other: str
    quantity: str = "rank correlation over models"

    def known(self, lines: Lines) -> bool:
        """Returns whether there are enough trainings."""
        return len(_trainings(lines)) >= FEWEST

    def found(self, lines: Lines) -> Confidence | None:
        """Returns the correlation of means over seeds; collapsed trainings are left out.

        None of fewer than ``FEWEST``, or of metrics that were not measured or are the same of all.
        """
        pairs = self._pairs(lines)
        return bootstrap(_spearman, pairs.mean(1)) if len(pairs) >= FEWEST else None

    def over_seeds(self, lines: Lines) -> Confidence | None:
        """Returns the mean over seeds of the correlation over these very models; None likewise."""
        pairs = self._pairs(lines)
        if len(pairs) < FEWEST:
            return None
        return student([_spearman(pairs[:, seed]) for seed in range(pairs.shape[1])])

    def _pairs(self, lines: Lines) -> np.ndarray:
        """Returns both metrics of the sound trainings, with shape (trainings, seeds, 2)."""
        sound = [line for line in _trainings(lines) if not line.diagnosis]
        names = (self.one, self.other)
        pairs = np.array([np.stack([line.values(k) for k in names], 1) for line in sound])
        pairs = pairs[np.isfinite(pairs).all((1, 2))] if sound else pairs
        return pairs if len(pairs) and np.ptp(pairs.mean(1), axis=0).all() else pairs[:0]


def _spearman(pairs: np.ndarray) -> float:
    """Returns the rank correlation of two columns, 0 where one has no order."""
    ranks = stats.rankdata(pairs, axis=0)
    return float(np.corrcoef(ranks, rowvar=False)[0, 1]) if np.ptp(ranks, axis=0).all() else 0.0


def _trainings(lines: Lines) -> list[Line]:
    """Returns the models that are trainings of their own, and no shifts of logits."""
    return [one for one in lines.values() if one.model.shift.name == "none"]


def of(metric: str, model: str, quantity: str) -> Number:
    """Returns a metric of a model."""
    return Number(quantity, (model,), lambda line: line.values(metric))


def less(metric: str, model: str, other: str, text: str = "") -> Number:
    """Returns a metric of a model less that of another; ``text``: what it is, if not its name."""
    plain = f"{metric} of {model} less that of {other}"
    quantity = f"{text}, {model} less {other}" if text else plain
    return Number(quantity, (model, other), lambda a, b: a.values(metric) - b.values(metric))


def ratio(model: str, other: str) -> Number:
    """Returns ‖g‖ of a model over that of another."""
    quantity = f"‖g‖ of {model} over that of {other}"
    return Number(
        quantity, (model, other), lambda a, b: a.values("gradient") / b.values("gradient")
    )


def _share(baseline: Line, blind: Line, score: Line) -> np.ndarray:
    start = baseline.values("A1")
    return (blind.values("A1") - start) / (score.values("A1") - start)


SHARE = Number(
    "share of the gain in A1 over the baseline", (BASELINE, BLIND["gaussian"], "score"), _share
)
"""The part of score's gain in A1 that a class-blind Gaussian has."""


def _explained(baseline: Line, score: Line, penalty: Line) -> np.ndarray:
    whole, part = (baseline.values("gradient") - m.values("gradient") for m in (score, penalty))
    return part / whole


EXPLAINED = Number(
    "fall of ‖g‖ from the baseline's, paper-control over paper-score",
    (BASELINE, "paper-score", "paper-control"),
    _explained,
)


def _law(score: Line, free: Line) -> np.ndarray:
    mu = score.model.classifier.regulariser.stability
    law = 1 / (1 - 2 * mu * free.values("trace"))
    return score.values("gradient") / free.values("gradient") / law


LAW = Number("measured ratio of ‖g‖ over the law's", ("score", "score-free"), _law)
"""‖g‖ with the stability penalty over that without, over 1 / (1 + 2 μ T)."""


def _depth(collapsed: Line) -> np.ndarray:
    floor = smallest_trace(collapsed.seeds[0].width, collapsed.model.classifier.smoothing)
    ends = [one.epochs[-1]["probe/trace"] if one.epochs else np.nan for one in collapsed.seeds]
    return np.array(ends) / floor


DEPTH = Number("mean trace of a training batch over the floor −D/s²", ("collapse",), _depth)
"""The trace at the end of training over the floor of smoothed data."""


def _changed(baseline: Line, *shifted: Line) -> np.ndarray:
    return np.max([np.abs(line.values("A3") - baseline.values("A3")) + 1
                   - line.values("change/same") for line in shifted], axis=0)  # fmt: skip


def changed(quantity: str, *shifted: str) -> Number:
    """Returns the largest change of A3 and share of changed predictions of shifted baselines."""
    return Number(quantity, (BASELINE, *shifted), _changed)
