"""Checks of the instrument: identities and closed forms that only a fault could break.

Each has a tolerance of about four standard errors at scale cpu, so that a correct program passes
whatever the seed.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from ebflow.complexity.closed_forms import chance_of_error, shift_crossing
from ebflow.complexity.crossing import crossing, slope
from ebflow.complexity.efficiency import mode_weight, mode_weight_ml
from ebflow.inference import Confidence, above, bootstrap, within
from pipelines.reporting.claims import Check
from pipelines.sample_complexity.cells import (
    PAIR_SIZES,
    SEPARATIONS,
    TRANSITION,
    TRANSITION_DELTAS,
    WEIGHT_NOISE,
)
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.results import Answer, counted, matrix, where

MANY = 256
"""The m from which on maximum likelihood is asymptotic."""

RARE = 1e-3
"""How rarely a correct program has gaps as large as those that fail."""

EXPONENTS = {
    ("m*_L2", "R/sigma"): (2.0, 0.4),
    ("m*_D", "R/sigma"): (0.0, 0.3),
    ("m*_L2", "d"): (0.0, 0.3),
    ("m*_L2", "log|H|"): (0.0, 0.6),
    ("m*_L2", "S"): (2.0, 0.3),
}
"""Of finite classes: the exponent where the far mass alone decides, or none of it; tolerance."""


def checks(config: ComplexityConfig, answers: Sequence[Answer], rows: pa.Table) -> list[Check]:
    """Returns all checks."""
    finite = [one for one in answers if one.question.learner == "finite"]
    return [
        _chances(rows),
        *(_exponent(one) for one in finite if _key(one) in EXPONENTS),
        _logarithm(config, next(a for a in finite if _key(a) == ("m*_D", "log|H|"))),
        _transition(config, rows),
        _likelihood(rows),
        _rate(rows),
        _smoothed(rows),
        *_weights(rows),
        _sampler(rows),
    ]


def _key(one: Answer) -> tuple[str, str]:
    return one.question.quantity, one.question.against


def surprise(rows: pa.Table) -> list[tuple[float, int, float, float, float]]:
    """Returns R/σ, m, the share of errors, its prediction, and the p-value of their gap."""
    rows = where(rows, panel="two points")
    found = []
    for ratio in sorted(set(rows["ratio"].to_pylist())):
        wrong, sizes = matrix(where(rows, ratio=ratio), "wrong")
        eta = where(rows, ratio=ratio)["eta"][0].as_py()
        for m, column in zip(sizes, wrong.T, strict=True):
            expected = chance_of_error(m, eta)
            p = stats.binomtest(int(column.sum()), len(column), expected).pvalue
            found.append((ratio, m, float(column.mean()), expected, float(p)))
    return found


def _chances(rows: pa.Table) -> Check:
    points = surprise(rows)
    least = min(1.0, len(points) * min(point[-1] for point in points))
    return Check.of(
        "ERM over two candidates errs with probability ½ (1 − η)ᵐ",
        f"least p of {len(points)} points, times their number",
        least,
        above(RARE),
        "two-sided binomial, Bonferroni",
    )


def _exponent(one: Answer) -> Check:
    expected, tolerance = EXPONENTS[_key(one)]
    question = one.question
    return Check.of(
        f"{question.quantity} of a finite class grows in {question.against} as its closed form",
        f"exponent of {question.quantity} in {question.against}",
        one.slope and one.slope.value,
        within(tolerance, of=expected),
    )


def _logarithm(config: ComplexityConfig, one: Answer) -> Check:
    level = one.question.level
    exact = [shift_crossing(_rivals(v), config.grid.epsilon, level) for v in one.values]
    expected = float(slope(one.values, np.array(exact)))
    return Check.of(
        "At a quantile a finite class needs samples as log |H|, up to a constant",
        "exponent of m*_D in log|H|",
        one.slope and one.slope.value,
        within(0.5, of=round(expected, 2)),
        "the exponent of the closed form for these |H|, and 1 as |H| → ∞",
    )


def _rivals(value: float) -> int:
    """Returns the false shifts of a class of e^``value`` pairs of a side and a shift."""
    return round(np.exp(value)) // 2 - 1


def _transition(config: ComplexityConfig, rows: pa.Table) -> Check:
    delta = max(d for d in TRANSITION_DELTAS if d < TRANSITION)
    transition = where(rows, panel="transition")
    first, second = (
        crossing(*matrix(transition, column), config.grid.epsilon)
        for column in (f"sigma_d_{delta:g}", "sigma_l2")
    )
    return Check.of(
        f"With δ = {delta:g} below η = {TRANSITION:g} the quantile needs what mean square needs",
        "m* at the quantile over m* in mean square, as a logarithm",
        float(np.log(first / second)) if np.isfinite([first, second]).all() else None,
        within(0.7),
    )


def _likelihood(rows: pa.Table) -> Check:
    likelihood = where(rows, panel="pairs", learner="ml", m=PAIR_SIZES[-1])
    return Check.of(
        "Maximum likelihood of a well-specified flow is off by half a nat over m a parameter",
        f"m KL at m = {PAIR_SIZES[-1]}, nats",
        PAIR_SIZES[-1] * float(np.mean(likelihood["kl"].to_numpy())),
        within(1.3, of=2.5),
    )


def _rate(rows: pa.Table) -> Check:
    likelihood = counted(where(rows, panel="pairs", learner="ml"))
    likelihood = likelihood.filter(pc.greater_equal(likelihood["m"], MANY))
    found = [matrix(where(likelihood, a=a), "kl") for a in SEPARATIONS]
    means = np.stack([errors.mean(0) for errors, _ in found])
    return Check.of(
        "The divergence of maximum likelihood falls as 1/m",
        "exponent of KL in m",
        float(np.mean(slope(found[0][1], means.T))),
        within(0.4, of=-1.0),
        f"from m = {MANY} on, mean over modes at ±{' and ±'.join(f'{a:g}' for a in SEPARATIONS)}",
    )


def _smoothed(rows: pa.Table) -> Check:
    denoised = where(rows, panel="pairs", learner="dsm1", m=PAIR_SIZES[-1])
    return Check.of(
        "Denoising learns the smoothed law, however many samples there are",
        f"KL(p ‖ flow) over KL(p ‖ q_σ) at σ = 1, m = {PAIR_SIZES[-1]}",
        float(np.mean(denoised["kl"].to_numpy() / denoised["kl_floor"].to_numpy())),
        within(0.25, of=1.0),
    )


def efficiency(rows: pa.Table, a: float, learner: str) -> Confidence:
    """Returns the logarithm of an objective's variance of a mode's weight over that of ML."""
    ours, theirs = (
        where(rows, panel="weights", a=a, learner=name)["theta"].to_numpy()
        for name in (learner, "ml")
    )
    return bootstrap(
        lambda x, y: float(np.log(x.var() / y.var())), ours, theirs, paired=False, resamples=400
    )


def _weights(rows: pa.Table) -> list[Check]:
    found = []
    for a in sorted(set(where(rows, panel="weights")["a"].to_pylist())):
        for learner, sigma in (("ism", 0.0), (f"dsm{WEIGHT_NOISE:g}", WEIGHT_NOISE)):
            expected = np.log(mode_weight(a, sigma) / mode_weight_ml(a))
            gap = efficiency(rows, a, learner).value - expected
            found.append(
                Check.of(
                    f"The variance of a mode's weight is that of its closed form: {learner}, "
                    f"modes at ±{a:g}",
                    "variance over that of maximum likelihood, log of measured over expected",
                    float(gap),
                    within(0.3),
                )
            )
    return found


def _sampler(rows: pa.Table) -> Check:
    """The flow with the exact score is as near to the law as true samples are."""
    truths = where(rows, panel="truths", eta=min(where(rows, panel="truths")["eta"].to_pylist()))
    tv = [
        float(np.mean(where(truths, learner=learner)["tv"].to_numpy()))
        for learner in ("exact score", "true samples")
    ]
    return Check.of(
        "The probability flow of the exact score samples the law that looks like data",
        "TV of components above that of true samples",
        tv[0] - tv[1],
        within(0.05),
    )
