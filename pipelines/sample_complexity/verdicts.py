"""What the study of sample complexity asks, and what it concludes.

Source: Improved Sample Complexity Bounds for Diffusion Model Training (Gupta, Parulekar, Price,
Xun, 2023), arXiv:2311.13745. Only shapes are asked for: exponents and where they vanish; its
constants and its powers of ε and d are upper bounds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, chain

import numpy as np
import pyarrow as pa
from scipy import stats

from ebflow.inference import Confidence, Region, above, bootstrap, student, within
from pipelines.reporting.claims import Claim, Conclusion, Question, decide
from pipelines.sample_complexity import law_questions
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.instrument import checks
from pipelines.sample_complexity.results import NETWORKS, Answer, matrix, where

HALF = 0.5
"""Exponents are told apart from this difference on: the worst case is 2, none is 0."""

RANKS = 0.2
"""Correlations of ranks are told apart from this difference on."""

BETTER = 0.1
"""Errors are told apart where they differ by more than this, as a logarithm."""

EXPONENTS: dict[tuple[str, str, str], tuple[str, Region, str]] = {
    **{
        ("m*_L2", "R/sigma", name): (
            f"In mean square {name}, need samples as the square of R/σ",
            within(HALF, of=2.0),
            "the far mode has the weight at which missing it costs 2 ε",
        )
        for name in NETWORKS
    },
    **{
        ("m*_D", "R/sigma", name): (
            f"At a quantile {name}, need as many samples at any R/σ",
            within(HALF),
            "",
        )
        for name in NETWORKS
    },
    ("m*_L2", "d", NETWORKS[-1]): (
        "What mean square needs of a far mode does not depend on the dimension",
        within(HALF),
        "networks also learn the bulk, in d dimensions",
    ),
    ("m*_D", "d", NETWORKS[-1]): (
        "At a quantile networks need samples as the dimension",
        within(HALF, of=1.0),
        "the bound has d times the number of weights, which grows with d too",
    ),
    ("m*_L2", "rarity", NETWORKS[-1]): (
        "In mean square networks need samples as the inverse of the far mode's weight η",
        within(HALF, of=-1.0),
        "at one R/σ",
    ),
    ("m*_D", "rarity", NETWORKS[-1]): (
        "At a quantile networks need as many samples at any weight η below δ",
        within(HALF),
        "at one R/σ",
    ),
    ("m*_L2", "1/epsilon", NETWORKS[-1]): (
        "In mean square, of one far mode, networks need as many samples whatever the error ε",
        within(HALF),
        "the bound of mean square depends on ε by the worst η alone",
    ),
    ("m*_D", "1/epsilon", NETWORKS[-1]): (
        "At a quantile networks need samples as 1/ε²",
        within(HALF, of=2.0),
        "the power of the bound, of one far mode",
    ),
    ("m*_D", "1/delta", NETWORKS[-1]): (
        "At a quantile networks need samples as 1/δ",
        within(HALF, of=1.0),
        "the power of the bound, of one far mode",
    ),
    ("m*_D", "width", NETWORKS[-1]): (
        "At a quantile networks of any width need as many samples",
        within(HALF),
        "the bound has the number of weights, about the square of the width",
    ),
    ("m*_D", "depth", NETWORKS[-1]): (
        "At a quantile networks of any depth need as many samples",
        within(HALF),
        "the bound has depth times the number of weights",
    ),
}
"""By quantity, against what, and learner: the claim, where the exponent is if it holds, a note."""

FIGURES = {"R/sigma": "scaling", "d": "dimensions"}
"""By what exponents are in: the figure that shows them."""

WOULD_CHANGE = (
    "Data whose rare modes are found by themselves: none was in these laws, which have the modes "
    "that a mixture of few components finds, and those that were implanted.",
    "Networks that are trained until the training set alone limits them: at the largest m the "
    "number of steps does, too.",
    "Another architecture, or a longer training of it: U-Nets are trained for the steps told.",
    "A sampler with noise. The probability flow adds none, and keeps copies as they are.",
)

Measured = tuple[Question, Confidence | None]


def conclusion(config: ComplexityConfig, answers: Sequence[Answer], rows: pa.Table) -> Conclusion:
    """Returns what the study concludes; at scale smoke, whose trainings are too short, nothing."""
    groups = law_questions.questions(config, rows)
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
        question = one.question
        key = (question.quantity, question.against, question.learner)
        if key in EXPONENTS:
            claim, expected, note = EXPONENTS[key]
            name = f"exponent of {question.quantity} in {question.against}"
            figure = FIGURES.get(question.against, "varied")
            yield Question(claim, name, expected, figure=figure, note=note), one.slope


def sampling(rows: pa.Table, sampler: str = "reverse SDE", size: int = 1) -> pa.Table:
    """Returns the learnt scores in d = ``size`` and what a sampler made of them."""
    return where(rows, panel="samplers", learner="networks", sampler=sampler, size=size)


def floors(rows: pa.Table, learner: str, sampler: str = "reverse SDE") -> pa.Table:
    """Returns what the exact score, by a sampler, or true samples are off, on the line."""
    sampler = "none" if learner == "true samples" else sampler
    return where(rows, panel="samplers", learner=learner, sampler=sampler, size=1)


def _sampling(rows: pa.Table) -> Iterator[Measured]:
    for size in sorted(set(where(rows, panel="samplers")["size"].to_pylist())):
        nested = sampling(rows, size=size)
        for column, name in (("tv", "total variation"), ("w2", "W2")):
            arrays = [matrix(nested, key)[0] for key in (column, "levels_d", "levels_l2")]
            yield Question(
                f"The {name} of samples follows the quantile error more than mean square, by "
                f"more than {RANKS:g}, d = {size}",
                "rank correlation with the largest Dᵟ less that with L2",
                above(RANKS), figure="sampling",
                note=f"{arrays[0].size} networks of {len(arrays[0])} nested training sets as they "
                "come; over all levels of the sampler, δ/N",
            ), bootstrap(_gap, *arrays, resamples=1000)  # fmt: skip


def _gap(outcome: np.ndarray, quantile: np.ndarray, mean: np.ndarray) -> float:
    ranks = [stats.rankdata(part) for part in (outcome, quantile, mean)]
    table = np.corrcoef(ranks)
    return float(table[0, 1] - table[0, 2])


def _fresh(rows: pa.Table) -> Measured:
    """Compares networks of equal training sets by the errors on the bulk."""
    pairs = []
    for name in NETWORKS:
        nets = where(rows, panel="networks", learner=name, size=1)
        nets = nets.sort_by([("ratio", "ascending"), ("seed", "ascending"), ("m", "ascending")])
        pairs.append(np.log(nets["sigma_l2_bulk"].to_numpy()))
    seeds = nets["seed"].to_numpy()
    gaps = [(pairs[0] - pairs[1])[seeds == seed].mean() for seed in np.unique(seeds)]
    return Question(
        f"Fresh noise at every step is the better estimator, by more than {BETTER:g}",
        "bulk error with one noise a sample over that with fresh noise, as a logarithm",
        above(BETTER), figure="estimators",
        note="mean over all m and R/σ, paired by training set",
    ), student(gaps)  # fmt: skip
