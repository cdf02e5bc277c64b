"""What the study of sample complexity asks, and what it concludes.

Source: Improved Sample Complexity Bounds for Diffusion Model Training (Gupta, Parulekar, Price,
Xun, 2023), arXiv:2311.13745. Only shapes are asked for: exponents and where they vanish; its
constants and its powers of ε and d are upper bounds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, chain

import numpy as np
import pandas as pd

from pipelines.reporting.claims import Claim, Conclusion, Measured, Question, decide
from pipelines.reporting.statistics import Region, above, rank_correlation, student, within
from pipelines.sample_complexity import denoiser_questions
from pipelines.sample_complexity.checks import checks
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.denoiser_questions import FAMILY, PREDICTORS, RANKS
from pipelines.sample_complexity.exponents import FRESH, NETWORKS, Answer
from pipelines.sample_complexity.rows import family, where

HALF = 0.5
"""Exponents are told apart from this difference on: the worst case is 2, none is 0."""

BETTER = 0.1
"""Errors are told apart where they differ by more than this, as a logarithm."""

EXPONENTS: dict[str, tuple[str, Region, str, str]] = {
    "R/σ": ("{learner}, need as many samples at any R/σ", within(HALF), "scaling", ""),
    "d": ("networks need samples as the dimension", within(HALF, of=1.0), "dimensions",
          "the bound has d times the number of weights, which grows with d too"),
    "η": ("networks need as many samples at any weight η below δ", within(HALF), "varied",
          "at one R/σ"),
    "1/δ": ("networks need samples as 1/δ", within(HALF, of=1.0), "varied",
            "the power of the bound, of one far mode"),
    "width": ("networks of any width need as many samples", within(HALF), "varied",
              "the bound has the number of weights, about the square of the width"),
    "depth": ("networks of any depth need as many samples", within(HALF), "varied",
              "the bound has depth times the number of weights"),
}  # fmt: skip
"""Of m* of networks at a quantile, by what against: the claim, where the exponent is if it holds,
a figure and a note. Exponents in mean square, where the chance of a far sample decides, and in 1/ε
are told without a claim: their intervals are as wide as what is asked at scale cpu.
"""

WOULD_CHANGE = (
    "Data whose rare modes are found by themselves: none was in these laws, which have the modes "
    "that a mixture of few components finds, and those that were implanted.",
    "Networks that are trained until the training set alone limits them: at the largest m the "
    "number of steps does, too.",
    "Other families of networks: within a training set ranks are over m and the length of "
    "training, which change both errors alike.",
    "Another architecture, or a longer training of it: U-Nets are trained for the steps told.",
    "A sampler with noise. The probability flow adds none, and keeps copies as they are.",
)


def conclusion(
    config: ComplexityConfig, answers: Sequence[Answer], rows: pd.DataFrame
) -> Conclusion:
    """Returns what the study concludes; at scale smoke, whose trainings are too short, nothing."""
    groups = denoiser_questions.questions(config, rows)
    measured = [*chain(*groups), *_exponents(answers), *_sampling(rows), _fresh(rows)]
    tested = checks(config, answers, rows)
    if config.scale == "smoke":
        measured = [(question, None) for question, _ in measured]
        tested = [replace(check, passed=None) for check in tested]
    claims = decide(measured)
    starts = accumulate(map(len, groups[:-1]), initial=0)
    findings = tuple("; ".join(map(_sentence, claims[at : at + 2])) + "." for at in starts)
    return Conclusion(findings, tuple(claims), tuple(tested), WOULD_CHANGE)


def _sentence(claim: Claim) -> str:
    value = f": {claim.quantity} {claim.estimate}" if claim.estimate else ""
    return f"{claim.claim} ({claim.verdict}{value})"


def _exponents(answers: Sequence[Answer]) -> Iterator[Measured]:
    for one in answers:
        against, learner = one.question.against, one.question.learner
        if one.question.quantity == "m*_D" and learner in NETWORKS and against in EXPONENTS:
            claim, expected, figure, note = EXPONENTS[against]
            claim = f"At a quantile {claim.format(learner=learner)}"
            quantity = f"exponent of m*_D in {against}"
            yield Question(claim, quantity, expected, figure=figure, note=note), one.slope
    yield _apart(answers)


def _apart(answers: Sequence[Answer]) -> Measured:
    """Compares the exponents in R/σ of both errors, of the same networks."""
    found = {
        one.question.quantity: one.growth
        for one in answers
        if (one.question.against, one.question.learner) == ("R/σ", FRESH)
    }
    return Question(
        f"In mean square {FRESH}, need samples as a higher power of R/σ than at a quantile",
        "exponent of m*_L2 in R/σ less that of m*_D", above(HALF), figure="scaling",
        note="the far mode has the weight at which missing it costs 2 ε; the same networks",
    ), found["m*_L2"].minus(found["m*_D"]) if len(found) > 1 else None  # fmt: skip


def _sampling(rows: pd.DataFrame) -> Iterator[Measured]:
    nets = where(rows, panel="samplers", learner="networks")
    mean = family(nets, "levels_l2")
    names = {"tv": "total variation", "w2": "W2"}
    for outcome, error in (("tv", "levels_q"), ("tv", "levels_d"), ("w2", "levels_q")):
        found, tail = family(nets, outcome), family(nets, error)
        yield Question(
            f"With a far mode on the line the {names[outcome]} of samples follows the "
            f"{PREDICTORS[error]} more than mean square, by more than {RANKS:g}",
            f"difference of rank correlations {FAMILY}", above(RANKS), figure="sampling",
            note=f"mean over {len(found)} training sets as they come, of {found.shape[1]} "
            "networks each",
        ), student(rank_correlation(found, tail) - rank_correlation(found, mean))  # fmt: skip


def _fresh(rows: pd.DataFrame) -> Measured:
    """Compares networks of equal training sets by the errors on the bulk."""
    nets = where(rows, panel="networks", size=1).sort_values(["ratio", "seed", "m"])
    once, fresh = (where(nets, learner=name) for name in NETWORKS)
    gaps = np.log(once["sigma_l2_bulk"].to_numpy()) - np.log(fresh["sigma_l2_bulk"].to_numpy())
    seeds = fresh["seed"].to_numpy()
    return Question(
        f"Fresh noise at every step is the better estimator, by more than {BETTER:g}",
        "bulk error with one noise a sample over that with fresh noise, as a logarithm",
        above(BETTER), note="mean over all m and R/σ, paired by training set",
    ), student([gaps[seeds == seed].mean() for seed in np.unique(seeds)])  # fmt: skip
