"""From the rows of the study to crossing points and exponents."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pipelines.reporting.statistics import Confidence
from pipelines.sample_complexity.cells import FURTHER, middle
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.crossing import Growth, growth
from pipelines.sample_complexity.rows import matrix, where

NETWORKS = ("networks, noise once", "networks, noise fresh")
FRESH = NETWORKS[-1]

EPSILONS = (0.35, 0.25, 0.18, 0.12)
"""The ε that m* is asked against, of one far mode."""

STEP_CROSSED = 0.5
"""The error, below that of a step, at which ERM has chosen the truth."""


@dataclass(frozen=True)
class Question:
    """How many samples something takes, against something else.

    Attributes:
        quantity: ``m*_L2`` or ``m*_D``.
        against: As it is told: ``R/σ``, ``log |H|``, ``d``, ``S``, ``width``, ``depth``, ``η``
            (over its worst value), ``1/ε`` or ``1/δ``.
        learner: The learner.
        panel: The rows' panel.
        column: The error.
        bound: What it is to be at most.
        key: The column of what m* is against; None: the rows are the same at every value.
        bounds: Without a key: the values, each with its error's column and what that is to be.
        fixed: Values that other columns have.
    """

    quantity: str
    against: str
    learner: str
    panel: str
    column: str = ""
    bound: float = 1.0
    key: str | None = None
    bounds: tuple[tuple[float, str, float], ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> float:
        """The quantile over training sets: the median for networks."""
        return 0.5 if self.learner in NETWORKS else 0.75


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        question: The question.
        values: What m* is against.
        growth: m* at each, infinite where the error does not cross, and the exponent.
    """

    question: Question
    values: tuple[float, ...]
    growth: Growth

    @property
    def slope(self) -> Confidence | None:
        """The exponent; None with less than three crossings."""
        return self.growth.slope

    @property
    def points(self) -> pd.DataFrame:
        """What m* is against, ``at``, with m* as ``value``, ``low`` and ``high``, where it is."""
        found = pd.DataFrame(self.growth.crossings).assign(at=self.values)
        return found[np.isfinite(found["value"])]

    @property
    def exponent(self) -> dict[str, Any]:
        """The line of ``summary.json``."""
        question = self.question
        value, low, high = self.slope.interval() if self.slope else (None, None, None)
        return {
            "quantity": question.quantity, "against": question.against,
            "learner": question.learner, "fixed": question.fixed, "slope": value,
            "low": low, "high": high, "points": self.points.to_dict("records"),
        }  # fmt: skip


def questions(config: ComplexityConfig) -> list[Question]:
    """Returns the questions of the study: m* in mean square, and at the last δ."""
    grid, learners, line = config.grid, config.learners, {"size": 1}
    here, there = middle(config), middle(config, FURTHER)
    usual = {"width": learners.width, "depth": learners.depth, "rarity": 1.0}
    at_once = partial(Question, learner=FRESH, panel="networks", fixed={**line, "ratio": here})
    far, varied = [], []
    for quantity, column in (("m*_L2", "sigma_l2"), ("m*_D", f"sigma_d_{grid.deltas[-1]:g}")):
        ask = partial(Question, quantity, column=column, bound=grid.epsilon)
        far += [
            ask("R/σ", "finite", "finite", key="ratio", fixed=line),
            *(ask("R/σ", name, "networks", key="ratio", fixed=line) for name in NETWORKS),
            ask("d", "finite", "finite", key="size", fixed={"ratio": here}),
            ask("d", FRESH, "networks", key="size", fixed={"ratio": there}),
            ask("log |H|", "finite", "classes", key="hypotheses"),
        ]
        for key in usual:
            others = {name: value for name, value in usual.items() if name != key}
            against = "η" if key == "rarity" else key
            varied.append(ask(against, FRESH, "varied", key=key, fixed=others))
        epsilons = tuple((1 / epsilon, column, epsilon) for epsilon in EPSILONS)
        varied.append(at_once(quantity, "1/ε", bounds=epsilons))
    deltas = tuple((1 / d, f"sigma_d_{d:g}", grid.epsilon) for d in sorted(grid.deltas))
    return [
        *far,
        *varied,
        at_once("m*_D", "1/δ", bounds=deltas),
        Question("m*_L2", "S", "finite", "steps", "sigma_l2", STEP_CROSSED, "height"),
    ]


def answer(question: Question, rows: pd.DataFrame, *, seed: int) -> Answer:
    """Returns m* at every value, and its growth.

    Widths, depths, weights, errors and masses have the same training sets, which are paired.
    Against log |H| the exponent is that of log |H|, and so it is 1 where m* is linear in it.
    """
    rows = where(rows, panel=question.panel, learner=question.learner, **question.fixed)
    if question.key is None:
        found = [(value, *matrix(rows, name), bound) for value, name, bound in question.bounds]
        values, errors, sizes, bounds = zip(*found, strict=True)
        errors = [part / bound for part, bound in zip(errors, bounds, strict=True)]
    else:
        keyed = [(key, *matrix(some, question.column)) for key, some in rows.groupby(question.key)]
        keys, errors, sizes = zip(*keyed, strict=True)
        scale = np.log if question.against == "log |H|" else float
        values = tuple(float(scale(key)) for key in keys)
    found = growth(
        values, errors, sizes, question.bound, level=question.level, seed=seed,
        paired=question.key is None or question.panel == "varied",
    )  # fmt: skip
    return Answer(question, values, found)
