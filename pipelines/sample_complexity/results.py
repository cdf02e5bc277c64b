"""From the rows of the study to crossing points and exponents."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ebflow.complexity.crossing import Growth, growth, power_over_log
from ebflow.inference import Confidence, Interval
from pipelines.cluster.environment import cpus
from pipelines.sample_complexity.cells import PAIR_OBJECTIVES, SEPARATIONS, middle
from pipelines.sample_complexity.config import ComplexityConfig

NETWORKS = tuple(f"networks, noise {noise}" for noise in ("once", "fresh"))

KAPPAS = (0.04, 0.02, 0.01)
"""The κ, in nats, that the divergence of flows is to reach."""


@dataclass(frozen=True)
class Question:
    """How many samples something takes, against something else.

    Attributes:
        quantity: ``m*_L2``, ``m*_D`` or ``m*_KL``.
        against: ``R/sigma``, ``log|H|``, ``d``, ``S``, ``width``, ``depth``, ``rarity``,
            ``1/epsilon``, ``1/delta`` or ``1/kappa``.
        learner: The learner.
        panel: The rows' panel.
        column: The error.
        key: The column of what it is against; None: the rows are the same at every value.
        bounds: Without a key: the values, each with its error's column and what that is to be.
        fixed: Values that other columns have.
        level: The quantile over training sets: the median for networks.
        paired: Whether the training sets are the same at every value.
    """

    quantity: str
    against: str
    learner: str
    panel: str
    column: str
    key: str | None
    bounds: tuple[tuple[float, str, float], ...] = ()
    fixed: tuple[tuple[str, Any], ...] = ()
    level: float = 0.75
    paired: bool = False

    @property
    def named(self) -> str:
        """The learner, and at which modes."""
        return ", ".join([self.learner, *(f"a = {a:g}" for k, a in self.fixed if k == "a")])


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        question: The question.
        values: What m* is against.
        growth: m* at each, infinite where the error does not cross, and the exponent.
        power: AIC of a polylogarithm less that of a power; None with less than four.
    """

    question: Question
    values: tuple[float, ...]
    growth: Growth
    power: float | None

    @property
    def crossings(self) -> list[Interval]:
        """m* at each value."""
        return self.growth.crossings

    @property
    def slope(self) -> Confidence | None:
        """The exponent; None with less than three crossings."""
        return self.growth.slope

    @property
    def exponent(self) -> dict[str, Any]:
        """The line of ``summary.json``."""
        question = self.question
        value, low, high = self.slope.interval() if self.slope else (None, None, None)
        points = [
            {"at": at, "m": m.value, "low": m.low, "high": m.high}
            for at, m in zip(self.values, self.crossings, strict=True)
            if np.isfinite(m.value)
        ]
        return {
            "quantity": question.quantity, "against": question.against,
            "learner": question.learner, "fixed": dict(question.fixed), "slope": value,
            "low": low, "high": high, "points": points, "aic_log_minus_power": self.power,
        }  # fmt: skip


def decisive(config: ComplexityConfig) -> str:
    """Returns the column of the quantile error that decides."""
    return f"sigma_d_{config.grid.deltas[-1]:g}"


def questions(config: ComplexityConfig) -> list[Question]:
    """Returns the questions of the study: m* in mean square, at the last δ, and in nats."""
    pairs = (("m*_L2", "sigma_l2"), ("m*_D", decisive(config)))
    found = []
    for quantity, column in pairs:
        measure = {"quantity": quantity, "column": column}
        found += [
            Question(against="R/sigma", learner="finite", panel="finite", key="ratio",
                     fixed=(("size", 1),), **measure),
            *(Question(against="R/sigma", learner=learner, panel="networks", key="ratio",
                       fixed=(("size", 1),), level=0.5, **measure) for learner in NETWORKS),
            Question(against="d", learner="finite", panel="finite", key="size", **measure),
            Question(against="d", learner=NETWORKS[-1], panel="networks", key="size", level=0.5,
                     **measure),
            Question(against="log|H|", learner="finite", panel="classes", key="hypotheses",
                     **measure),
        ]  # fmt: skip
    steps = Question("m*_L2", "S", "finite", "steps", "sigma_l2", "height")
    kappas = tuple((1 / kappa, "kl", kappa) for kappa in KAPPAS)
    nats = [
        Question(
            "m*_KL", "1/kappa", objective, "pairs", "kl", None, kappas, (("a", a),), paired=True
        )
        for a in SEPARATIONS
        for objective in PAIR_OBJECTIVES
    ]
    return [*found, *_networks(config, pairs), steps, *nats]


def _networks(config: ComplexityConfig, pairs: Sequence[tuple[str, str]]) -> Iterator[Question]:
    """Gives what networks are asked besides R/σ and d: at one R/σ, on the line."""
    grid, learner, learners = config.grid, NETWORKS[-1], config.learners
    usual = {"width": learners.width, "depth": learners.depth, "rarity": 1.0}
    fixed = (("size", 1), ("ratio", middle(config)))
    for quantity, column in pairs:
        for key in usual:
            others = tuple((name, value) for name, value in usual.items() if name != key)
            yield Question(
                quantity, key, learner, "varied", column, key, fixed=others, level=0.5, paired=True
            )
        epsilons = tuple((1 / epsilon, column, epsilon) for epsilon in grid.epsilons)
        yield Question(
            quantity, "1/epsilon", learner, "networks", column, None, epsilons, fixed, 0.5,
            paired=True,
        )  # fmt: skip
    deltas = tuple((1 / d, f"sigma_d_{d:g}", grid.epsilon) for d in sorted(grid.deltas))
    yield Question(
        "m*_D", "1/delta", learner, "networks", column, None, deltas, fixed, 0.5, paired=True
    )


def where(rows: pa.Table, **columns: Any) -> pa.Table:  # noqa: ANN401
    """Returns the rows in which columns have these values."""
    for name, value in columns.items():
        rows = rows.filter(pc.equal(rows[name], pa.scalar(value, rows[name].type)))
    return rows


def counted(rows: pa.Table) -> pa.Table:
    """Returns the rows of finitely many samples."""
    return rows.filter(pc.is_valid(rows["m"]))


def matrix(rows: pa.Table, column: str) -> tuple[np.ndarray, list[int]]:
    """Returns a column with shape (training sets, sizes), and the sizes m."""
    rows = rows.sort_by([("seed", "ascending"), ("m", "ascending")])
    sizes = sorted(set(rows["m"].to_pylist()))
    return rows[column].to_numpy().astype(float).reshape(-1, len(sizes)), sizes


def answer(question: Question, rows: pa.Table, *, epsilon: float, seed: int) -> Answer:
    """Returns m* at every value, its growth, and which of two curves describes it better.

    Against log|H| the exponent is that of log|H|, and so it is 1 where m* is linear in it. Where
    R/σ is not what is varied, it is the one of the panel at which d is.
    """
    rows = counted(where(rows, panel=question.panel, learner=question.learner))
    rows = where(rows, **dict(question.fixed))
    if question.against == "d":
        rows = where(rows, ratio=_varied(rows, "size", "ratio"))
    values, errors, sizes = (_by_bound if question.key is None else _by_key)(question, rows)
    found = growth(
        values, errors, sizes, _bound(question, epsilon), level=question.level, seed=seed,
        paired=question.paired,
    )  # fmt: skip
    crossed = [(v, m.value) for v, m in zip(values, found.crossings, strict=True)
               if np.isfinite(m.value)]  # fmt: skip
    power = power_over_log(*zip(*crossed, strict=True)) if len(crossed) > 3 else None
    return Answer(question, tuple(values), found, power)


Errors = tuple[list[float], list[np.ndarray], list[list[int]]]
"""What m* is against; and for each of its values the errors and the sizes m."""


def _by_key(question: Question, rows: pa.Table) -> Errors:
    keys = sorted(set(rows[question.key].to_pylist()))
    values = [float(np.log(key)) if question.against == "log|H|" else float(key) for key in keys]
    pairs = [matrix(where(rows, **{question.key: key}), question.column) for key in keys]
    return values, [errors for errors, _ in pairs], [sizes for _, sizes in pairs]


def _by_bound(question: Question, rows: pa.Table) -> Errors:
    """Returns errors over their bounds, which are to be 1 at most."""
    found = [(value, *matrix(rows, column), bound) for value, column, bound in question.bounds]
    values, errors, sizes, bounds = (list(part) for part in zip(*found, strict=True))
    return values, [part / bound for part, bound in zip(errors, bounds, strict=True)], sizes


def _bound(question: Question, epsilon: float) -> float:
    if question.key is None:
        return 1.0
    return STEP_CROSSED if question.panel == "steps" else epsilon


PAUSE_S = 30.0

STEP_CROSSED = 0.5
"""The error, below that of a step, at which ERM has chosen the truth."""


def _varied(rows: pa.Table, varied: str, fixed: str) -> float:
    """Returns the value of one column at which another has the most values."""
    counts = {
        value: len(set(where(rows, **{fixed: value})[varied].to_pylist()))
        for value in set(rows[fixed].to_pylist())
    }
    return max(counts, key=counts.get)


def busy(costs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns what cells cost, and the share of the machine's cores that they kept busy.

    The share is processor time over the time from the first cell to the last, times the cores;
    where no cell runs for half a minute the command was not running, which does not count.
    """
    cpu = sum(cost["cpu_s"] for cost in costs)
    wall, end = 0.0, -np.inf
    for began, ended in sorted((cost["began"], cost["ended"]) for cost in costs):
        since = began if began - end > PAUSE_S else end
        wall += max(0.0, ended - since)
        end = max(end, ended)
    return {
        "study/cells": len(costs),
        "study/cpu_s": cpu,
        "study/cpu_s_a_cell": cpu / len(costs),
        "study/wall_s": wall,
        "study/cpu_busy": cpu / wall / cpus(),
    }
