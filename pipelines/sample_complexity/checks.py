"""Checks of the instrument: identities and closed forms that only a fault could break.

Each has a tolerance of about four standard errors at scale cpu, so that a correct program passes
whatever the seed.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from ebflow.complexity.closed_forms import chance_of_error, shift_crossing
from ebflow.complexity.efficiency import mode_weight, mode_weight_ml
from pipelines.reporting.claims import Check
from pipelines.reporting.statistics import above, within
from pipelines.sample_complexity.cells import (
    PAIR_SIZES,
    SEPARATIONS,
    TRANSITION,
    TRANSITION_DELTAS,
    WEIGHT_NOISE,
)
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.crossing import crossing, slope
from pipelines.sample_complexity.exponents import Answer
from pipelines.sample_complexity.rows import matrix, where

MANY = 256
"""The m from which on maximum likelihood is asymptotic."""

RARE = 1e-3
"""How rarely a correct program has gaps as large as those that fail."""

EXPONENTS = {
    ("m*_L2", "R/σ"): (2.0, 0.4),
    ("m*_D", "R/σ"): (0.0, 0.3),
    ("m*_L2", "d"): (0.0, 0.3),
    ("m*_L2", "log |H|"): (0.0, 0.6),
    ("m*_L2", "S"): (2.0, 0.3),
}
"""Of finite classes: the exponent where the far mass alone decides, or none of it; tolerance."""


def checks(config: ComplexityConfig, answers: Sequence[Answer], rows: pd.DataFrame) -> list[Check]:
    """Returns all checks."""
    finite = [one for one in answers if one.question.learner == "finite"]
    panels = {name: where(rows, panel=name) for name in rows["panel"].unique()}
    return [
        _chances(panels["two points"]),
        *(_exponent(one) for one in finite if _key(one) in EXPONENTS),
        _logarithm(config, next(a for a in finite if _key(a) == ("m*_D", "log |H|"))),
        _transition(config, panels["transition"]),
        *_divergences(panels["pairs"]),
        *_weights(panels["weights"]),
        _sampler(panels["truths"]),
    ]


def _key(one: Answer) -> tuple[str, str]:
    return one.question.quantity, one.question.against


def _chances(rows: pd.DataFrame) -> Check:
    found = []
    for _, some in rows.groupby("ratio"):
        wrong, sizes = matrix(some, "wrong")
        for m, column in zip(sizes, wrong.T, strict=True):
            expected = chance_of_error(m, float(some["eta"].iloc[0]))
            found.append(stats.binomtest(int(column.sum()), len(column), expected).pvalue)
    return Check.of(
        "ERM over two candidates errs with probability ½ (1 − η)ᵐ",
        f"least p of {len(found)} points, times their number",
        min(1.0, len(found) * float(min(found))), above(RARE), "two-sided binomial, Bonferroni",
    )  # fmt: skip


def _exponent(one: Answer) -> Check:
    (quantity, against), (expected, tolerance) = _key(one), EXPONENTS[_key(one)]
    return Check.of(
        f"{quantity} of a finite class grows in {against} as its closed form",
        f"exponent of {quantity} in {against}",
        one.slope and one.slope.value, within(tolerance, of=expected),
    )  # fmt: skip


def _logarithm(config: ComplexityConfig, one: Answer) -> Check:
    """Of e^v pairs of a side and a shift, as many shifts but one are false."""
    rivals = [round(np.exp(value)) // 2 - 1 for value in one.values]
    exact = [shift_crossing(k, config.grid.epsilon, one.question.level) for k in rivals]
    expected = float(slope(one.values, np.array(exact)))
    return Check.of(
        "At a quantile a finite class needs samples as log |H|, up to a constant",
        "exponent of m*_D in log |H|",
        one.slope and one.slope.value, within(0.5, of=round(expected, 2)),
        "the exponent of the closed form for these |H|, and 1 as |H| → ∞",
    )  # fmt: skip


def _transition(config: ComplexityConfig, rows: pd.DataFrame) -> Check:
    delta = max(d for d in TRANSITION_DELTAS if d < TRANSITION)
    first, second = (
        crossing(*matrix(rows, column), config.grid.epsilon)
        for column in (f"sigma_d_{delta:g}", "sigma_l2")
    )
    return Check.of(
        f"With δ = {delta:g} below η = {TRANSITION:g} the quantile needs what mean square needs",
        "m* at the quantile over m* in mean square, as a logarithm",
        float(np.log(first / second)) if np.isfinite([first, second]).all() else None,
        within(0.7),
    )


def _divergences(rows: pd.DataFrame) -> Iterator[Check]:
    likelihood, last = where(rows, learner="ml"), PAIR_SIZES[-1]
    yield Check.of(
        "Maximum likelihood of a well-specified flow is off by half a nat over m a parameter",
        f"m KL at m = {last}, nats",
        last * float(where(likelihood, m=last)["kl"].mean()), within(1.3, of=2.5),
    )  # fmt: skip
    many = likelihood[likelihood["m"] >= MANY]
    pairs = [matrix(where(many, a=a), "kl") for a in SEPARATIONS]
    means = np.stack([errors.mean(0) for errors, _ in pairs])
    yield Check.of(
        "The divergence of maximum likelihood falls as 1/m", "exponent of KL in m",
        float(np.mean(slope(pairs[0][1], means.T))), within(0.4, of=-1.0),
        f"from m = {MANY} on, mean over modes at ±{' and ±'.join(f'{a:g}' for a in SEPARATIONS)}",
    )  # fmt: skip
    denoised = where(rows, learner="dsm1", m=last)
    yield Check.of(
        "Denoising learns the smoothed law, however many samples there are",
        f"KL(p ‖ flow) over KL(p ‖ q_σ) at σ = 1, m = {last}",
        float((denoised["kl"] / denoised["kl_floor"]).mean()), within(0.25, of=1.0),
    )  # fmt: skip


def _weights(rows: pd.DataFrame) -> Iterator[Check]:
    for a, (learner, sigma) in product(
        sorted(rows["a"].unique().tolist()), (("ism", 0.0), (f"dsm{WEIGHT_NOISE:g}", WEIGHT_NOISE))
    ):
        ours, theirs = (
            where(rows, a=a, learner=name)["theta"].to_numpy() for name in (learner, "ml")
        )
        expected = np.log(mode_weight(a, sigma) / mode_weight_ml(a))
        yield Check.of(
            f"The variance of a mode's weight is that of its closed form: {learner}, modes at "
            f"±{a:g}",
            "variance over that of maximum likelihood, log of measured over expected",
            float(float(np.log(ours.var() / theirs.var())) - expected), within(0.3),
        )  # fmt: skip


def _sampler(rows: pd.DataFrame) -> Check:
    """The flow with the exact score is as near to the law as true samples are."""
    plain = where(rows, eta=rows["eta"].min())
    exact, true = (
        float(where(plain, learner=name)["tv"].mean()) for name in ("exact score", "true samples")
    )
    return Check.of(
        "The probability flow of the exact score samples the law that looks like data",
        "TV of components above that of true samples", exact - true, within(0.05),
    )  # fmt: skip
