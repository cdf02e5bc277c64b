"""Numbers that compare measured models, from their lines, seed by seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import stats

from ebflow.alignment.regularizers import smallest_trace
from pipelines.gradient_alignment.models import BASELINE, BLIND, penalty_kind
from pipelines.gradient_alignment.over_seeds import Line, Lines
from pipelines.reporting.statistics import Confidence, student

FEWEST = 8
"""Sound trainings from which on they are looked at together."""


@dataclass(frozen=True)
class Number:
    """A number of some models, with a value a seed.

    Attributes:
        quantity: What it is.
        models: The models that it takes; none: all trainings of their own that are sound.
        compute: From the lines of these to a value a seed.
    """

    quantity: str
    models: tuple[str, ...]
    compute: Callable[..., np.ndarray]

    def known(self, lines: Lines) -> bool:
        """Returns whether its models are there, and enough of them if it takes all."""
        named = set(self.models) <= lines.keys()
        return named and (bool(self.models) or len(_trainings(lines)) >= FEWEST)

    def values(self, lines: Lines) -> np.ndarray:
        """Returns it seed by seed; NaN of a seed that diverged."""
        taken = [lines[name] for name in self.models] or _trainings(lines)
        return self.compute(*taken)

    def found(self, lines: Lines) -> Confidence | None:
        """Returns the mean over seeds; None where one diverged or lacks the number."""
        values = self.values(lines)
        overlap = next(iter(lines.values())).overlap
        return student(values, overlap=overlap) if np.isfinite(values).all() else None


def _trainings(lines: Lines) -> list[Line]:
    """Returns the sound models that are trainings of their own, and no shifts of logits."""
    found = lines.values()
    return [one for one in found if one.model.shift.name == "none" and not one.diagnosis]


def _ranks(metric: str, lines: Sequence[Line]) -> np.ndarray:
    """Returns ranks of models by a metric, with shape (seeds, models); NaN without an order."""
    values = np.array([line.values(metric) for line in lines]).T
    ordered = np.isfinite(values).all(1) & (np.ptp(values, axis=1) > 0)
    return np.where(ordered[:, None], stats.rankdata(values, axis=1), np.nan)


def _correlation(one: str, other: str, lines: Sequence[Line]) -> np.ndarray:
    """Returns the rank correlation of two metrics over models, seed by seed."""
    a, b = (stats.zscore(_ranks(metric, lines), axis=1) for metric in (one, other))
    return (a * b).mean(1)


def order(one: str, other: str, sign: int = 1) -> Number:
    """Returns the rank correlation of two metrics, the other times a sign, over all trainings."""
    quantity = "rank correlation over these models"
    return Number(quantity, (), lambda *lines: sign * _correlation(one, other, lines))


def _explained_by_kind(metric: str, lines: Sequence[Line]) -> np.ndarray:
    """Returns the share of the variance of a metric's ranks that is between kinds of penalty.

    It is adjusted for the number of kinds, as is a correlation's square by 1 for its slope.
    """
    penalties = [line.model.classifier.regularizer for line in lines]
    found, kinds = _ranks(metric, lines), list(map(penalty_kind, penalties))
    groups = [found[:, [k == one for k in kinds]] for one in dict.fromkeys(kinds)]
    within = sum(len(group.T) * group.var(1) for group in groups) / (len(kinds) - len(groups))
    return 1 - within / found.var(1, ddof=1)


def explained(metric: str, by: str) -> Number:
    """Returns how much more of a metric's ranks another explains than the kind of penalty does."""

    def compute(*lines: Line) -> np.ndarray:
        left = (1 - _correlation(metric, by, lines) ** 2) * (len(lines) - 1) / (len(lines) - 2)
        return 1 - left - _explained_by_kind(metric, lines)

    return Number(
        f"adjusted share of the variance of {metric}'s ranks over these models that {by} "
        "explains, less that which the kind of regularizer explains",
        (), compute,
    )  # fmt: skip


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
    return Number(quantity, (model, other), _shorter)


def _shorter(one: Line, other: Line) -> np.ndarray:
    return one.values("gradient") / other.values("gradient")


def _share(metric: str, start: Line, whole: Line, part: Line) -> np.ndarray:
    """Returns the part of what a metric changes from a start to one line, at another."""
    first = start.values(metric)
    return (part.values(metric) - first) / (whole.values(metric) - first)


SHARE = Number(
    "share of the gain in A1 over the baseline",
    (BASELINE, "score", BLIND["gaussian"]),
    partial(_share, "A1"),
)
"""The part of score's gain in A1 that a class-blind Gaussian has."""

EXPLAINED = Number(
    "fall of ‖g‖ from the baseline's, paper-control over paper-score",
    (BASELINE, "paper-score", "paper-control"),
    partial(_share, "gradient"),
)


def _law(score: Line, free: Line) -> np.ndarray:
    mu = score.model.classifier.regularizer.stability
    return _shorter(score, free) / (1 / (1 - 2 * mu * free.values("trace")))


LAW = Number("measured ratio of ‖g‖ over the law's", ("score", "score-free"), _law)
"""‖g‖ with the stability penalty over that without, over 1 / (1 + 2 μ T)."""


def _depth(collapsed: Line) -> np.ndarray:
    floor = smallest_trace(collapsed.seeds[0].width, collapsed.model.classifier.smoothing)
    ends = [one.epochs[-1]["probe/trace"] if one.epochs else np.nan for one in collapsed.seeds]
    return np.array(ends) / floor


DEPTH = Number("mean trace of a training batch over the floor −D/s²", ("collapse",), _depth)
"""The trace at the end of training over the floor of smoothed data."""


SHUFFLED = Number(
    "|A3| with the scores of other points, baseline",
    (BASELINE,),
    lambda line: np.abs(line.values("A3/shuffled")),
)


def changed(quantity: str, *shifted: str) -> Number:
    """Returns the largest change of A3 and share of changed predictions of shifted baselines."""

    def compute(baseline: Line, *lines: Line) -> np.ndarray:
        changes = (np.abs(line.values("A3") - baseline.values("A3")) for line in lines)
        same = (line.values("change/same") for line in lines)
        return np.max([a3 + 1 - b for a3, b in zip(changes, same, strict=True)], axis=0)

    return Number(quantity, (BASELINE, *shifted), compute)
