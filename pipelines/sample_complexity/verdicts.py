"""The claims of the study of sample complexity, each judged by one number.

Source: Improved Sample Complexity Bounds for Diffusion Model Training (Gupta, Parulekar, Price,
Xun, 2023), arXiv:2311.13745. Only shapes are claimed: exponents and where they vanish; its
constants and its powers of ε and d are upper bounds.
"""

__all__ = ["DECIDES", "claims", "efficiency", "floors", "sampling", "surprise"]

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from ebflow.complexity.closed_forms import chance_of_error, shift_crossing
from ebflow.complexity.crossing import crossing, slope
from ebflow.complexity.efficiency import mode_weight, mode_weight_ml
from ebflow.estimate import Interval
from pipelines.reporting.claims import Claim, judge, untested
from pipelines.sample_complexity.cells import (
    PAIR_SIZES,
    SEPARATIONS,
    TRANSITION,
    TRANSITION_DELTAS,
    WEIGHT_NOISE,
)
from pipelines.sample_complexity.config import ComplexityConfig
from pipelines.sample_complexity.results import NETWORKS, Answer, counted, decisive, matrix, where

RESAMPLES = 1000

MANY = 256
"""The m from which on maximum likelihood is asymptotic."""

DECIDES = {
    ("m*_L2", "R/sigma", "finite"): (
        "In mean square a finite class needs samples as the square of R/σ",
        lambda b: 1.8 <= b.value <= 2.2 and b.low > 1,
        "expected 2: within [1.8, 2.2], the interval above 1",
    ),
    ("m*_D", "R/sigma", "finite"): (
        "At a quantile a finite class needs as many samples at any R/σ",
        lambda b: -0.25 <= b.value <= 0.25 and b.low <= 0 <= b.high,
        "expected 0: within ±0.25, the interval around 0",
    ),
    **{
        ("m*_L2", "R/sigma", name): (
            f"So do {name}, in mean square",
            lambda b: b.value >= 1.5,
            "expected 2: at least 1.5",
        )
        for name in NETWORKS
    },
    **{
        ("m*_D", "R/sigma", name): (
            f"So do {name}, at a quantile",
            lambda b: b.value <= 0.3,
            "expected 0: at most 0.3",
        )
        for name in NETWORKS
    },
    ("m*_L2", "d", "finite"): (
        "What mean square needs of a far mode does not depend on the dimension: a finite class",
        lambda b: b.low <= 0 <= b.high,
        "expected 0: the interval around 0",
    ),
    ("m*_L2", "d", NETWORKS[-1]): (
        "What mean square needs of a far mode does not depend on the dimension: networks",
        lambda b: b.low <= 0 <= b.high,
        "expected 0: the interval around 0; networks also learn the bulk, in d dimensions",
    ),
    ("m*_L2", "log|H|", "finite"): (
        "In mean square the far mode decides, and not |H|",
        lambda b: b.low <= 0 <= b.high,
        "expected 0: the interval around 0",
    ),
    ("m*_L2", "S", "finite"): (
        "To tell an easy truth from a step of height S takes samples as the square of S",
        lambda b: 1.8 <= b.value <= 2.2 and b.low > 1,
        "expected 2: within [1.8, 2.2], the interval above 1",
    ),
}
"""By quantity, against what, and learner: the claim, when it holds, and what was expected."""


def claims(config: ComplexityConfig, answers: Sequence[Answer], rows: pa.Table) -> list[Claim]:
    """Returns all claims; at scale smoke, whose trainings are too short, none is judged."""
    found = [
        _chances(rows),
        *(_growth(one) for one in answers if _key(one) in DECIDES),
        _logarithm(config, _the(answers, "m*_D", "log|H|", "finite")),
        _power(_the(answers, "m*_L2", "R/sigma", "finite")),
        _transition(config, rows),
        _sampling(config, rows),
        _missed(rows),
        _fresh(rows),
        _likelihood(rows),
        _rate(rows),
        _biased(rows),
        *_weights(rows),
    ]
    if config.scale != "smoke":
        return found
    return [replace(claim, verdict="not tested at this scale") for claim in found]


def _key(one: Answer) -> tuple[str, str, str]:
    return one.question.quantity, one.question.against, one.question.learner


def _growth(one: Answer) -> Claim:
    claim, holds, note = DECIDES[_key(one)]
    name = f"exponent of {one.question.quantity} in {one.question.against}"
    figure = {"R/sigma": "scaling", "S": "steps"}.get(one.question.against, "dimensions")
    if one.slope is None:
        return untested(claim, name, note=f"{note}; fewer than three crossings")
    return judge(claim, name, one.slope, holds, figure=figure, note=note)


def surprise(rows: pa.Table) -> list[tuple[float, int, float, float, float]]:
    """Returns R/σ, m, the share of errors, its prediction, and their gap in standard errors."""
    rows = where(rows, panel="two points")
    found = []
    for ratio in sorted(set(rows["ratio"].to_pylist())):
        wrong, sizes = matrix(where(rows, ratio=ratio), "wrong")
        eta = where(rows, ratio=ratio)["eta"][0].as_py()
        for m, rate in zip(sizes, wrong.mean(0), strict=True):
            expected = chance_of_error(m, eta)
            se = (expected * (1 - expected) / len(wrong)) ** 0.5
            found.append((ratio, m, float(rate), expected, float(abs(rate - expected) / se)))
    return found


def _chances(rows: pa.Table) -> Claim:
    points = surprise(rows)
    worst = max(point[-1] for point in points)
    return Claim(
        "ERM over two candidates errs with probability ½ (1 − η)ᵐ",
        "holds" if worst <= 3 else "does not hold",
        f"largest of {len(points)} gaps, in standard errors",
        worst,
        figure="chances",
        note="expected at most 3 at every point",
    )


def _the(answers: Sequence[Answer], *key: str) -> Answer:
    return next(one for one in answers if _key(one) == key)


def _logarithm(config: ComplexityConfig, one: Answer) -> Claim:
    """Judges by the exponent that m* has in closed form for the same |H|."""
    claim = "At a quantile a finite class needs samples as log |H|, up to a constant"
    name, level = "exponent of m*_D in log|H|", one.question.level
    if one.slope is None:
        return untested(claim, name, note="fewer than three crossings")
    exact = [shift_crossing(_rivals(value), config.grid.epsilon, level) for value in one.values]
    expected = float(slope(one.values, np.array(exact)))
    return judge(
        claim,
        name,
        one.slope,
        lambda b: b.low <= expected <= b.high,
        figure="dimensions",
        note=f"expected {expected:.2f} for these |H|, by the Gaussian tails of sums of losses, "
        "and 1 as |H| → ∞: the interval around it",
    )


def _rivals(value: float) -> int:
    """Returns the false shifts of a class of e^``value`` pairs of a side and a shift."""
    return round(np.exp(value)) // 2 - 1


def _power(one: Answer) -> Claim:
    claim = "A power of R/σ describes m* in mean square better than a polylogarithm"
    name = "AIC of the polylogarithm less that of the power"
    if one.power is None:
        return untested(claim, name, note="fewer than four crossings")
    verdict = "holds" if one.power > 0 else "does not hold"
    note = "expected above 0; a comparison of two curves, no test"
    return Claim(claim, verdict, name, one.power, figure="scaling", note=note)


def _bootstrap(
    statistic: Callable[..., float], *samples: np.ndarray, paired: bool = False
) -> Interval:
    """Returns a statistic of samples with the percentile interval of a bootstrap."""
    rng = np.random.default_rng(0)
    found = stats.bootstrap(
        samples, statistic, vectorized=False, paired=paired, method="percentile",
        n_resamples=RESAMPLES, rng=rng,
    )  # fmt: skip
    return Interval(float(statistic(*samples)), *map(float, found.confidence_interval))


def _transition(config: ComplexityConfig, rows: pa.Table) -> Claim:
    """Compares m* of a quantile below η with that of mean square."""
    delta = max(d for d in TRANSITION_DELTAS if d < TRANSITION)
    told = where(rows, panel="transition")
    mean, sizes = matrix(told, "sigma_l2")
    tail, _ = matrix(told, f"sigma_d_{delta:g}")

    def ratio(trials: np.ndarray) -> float:
        first, second = (
            crossing(errors[trials], sizes, config.grid.epsilon) for errors in (tail, mean)
        )
        return float(min(first, sizes[-1]) / min(second, sizes[-1]))

    return judge(
        f"With δ below η the quantile needs what mean square needs (δ = {delta:g}, "
        f"η = {TRANSITION:g})",
        "m* at the quantile over m* in mean square",
        _bootstrap(ratio, np.arange(len(mean))),
        lambda found: 0.5 <= found.value <= 2,
        figure="transition",
        note="expected 1: within a factor of 2",
    )


def sampling(rows: pa.Table, sampler: str = "reverse SDE") -> pa.Table:
    """Returns the learnt scores on the line and what a sampler made of them."""
    return where(rows, panel="samplers", learner="networks", sampler=sampler, size=1)


def floors(rows: pa.Table, learner: str, sampler: str = "reverse SDE") -> pa.Table:
    """Returns what the exact score, by a sampler, or true samples are off, on the line."""
    sampler = "none" if learner == "true samples" else sampler
    return where(rows, panel="samplers", learner=learner, sampler=sampler, size=1)


def _sampling(config: ComplexityConfig, rows: pa.Table) -> Claim:
    told = sampling(rows)
    columns = [told[name].to_numpy() for name in ("tv", decisive(config), "sigma_l2")]

    def gap(tv: np.ndarray, quantile: np.ndarray, mean: np.ndarray) -> float:
        return stats.spearmanr(tv, quantile)[0] - stats.spearmanr(tv, mean)[0]

    return judge(
        "Sampling error follows the quantile error, and not mean square",
        "rank correlation of TV with σ Dᵟ less that with σ L2",
        _bootstrap(gap, *columns, paired=True),
        lambda found: found.low > 0,
        figure="sampling",
        note=f"{len(told)} networks; expected above 0",
    )


def _missed(rows: pa.Table) -> Claim:
    told = where(sampling(rows), missed=True)
    told = where(told, m=max(told["m"].to_pylist()))
    floor = floors(rows, "exact score")
    eta = told["eta"][0].as_py()
    samples = told["tv"].to_numpy(), floor["tv"].to_numpy()
    return judge(
        "A score that misses the far mode, 2 ε off in mean square, samples almost as well",
        "TV above that of the exact score",
        _bootstrap(lambda tv, exact: float(np.mean(tv) - np.mean(exact)), *samples),
        lambda found: found.value <= 3 * eta,
        figure="sampling",
        note=f"expected about η = {eta:.3g}, the mass that is missed: at most 3 η",
    )


def _fresh(rows: pa.Table) -> Claim:
    """Compares networks of equal training sets by the errors on the bulk."""
    pairs = []
    for name in NETWORKS:
        told = where(rows, panel="networks", learner=name, size=1)
        told = told.sort_by([("ratio", "ascending"), ("seed", "ascending"), ("m", "ascending")])
        pairs.append(np.log(told["sigma_l2_bulk"].to_numpy()))
    seeds = told["seed"].to_numpy()
    gaps = np.array([(pairs[0] - pairs[1])[seeds == seed].mean() for seed in np.unique(seeds)])
    return judge(
        "Fresh noise at every step is the better estimator",
        "bulk error with one noise a sample over that with fresh noise",
        _bootstrap(lambda gap: float(np.exp(np.mean(gap))), gaps),
        lambda found: found.low > 1,
        figure="estimators",
        note="geometric mean over all m and R/σ, paired by training set; expected above 1",
    )


def _likelihood(rows: pa.Table) -> Claim:
    told = where(rows, panel="pairs", learner="ml", m=PAIR_SIZES[-1])
    scaled = told["kl"].to_numpy() * PAIR_SIZES[-1]
    return judge(
        "Maximum likelihood of a well-specified flow is off by half a nat over m a parameter",
        f"m KL at m = {PAIR_SIZES[-1]}, nats",
        _bootstrap(lambda kl: float(np.mean(kl)), scaled),
        lambda found: found.low <= 2.5 <= found.high,
        figure="divergences",
        note="expected 5/2 for five parameters: the interval around it",
    )


def _rate(rows: pa.Table) -> Claim:
    told = counted(where(rows, panel="pairs", learner="ml"))
    told = told.filter(pc.greater_equal(told["m"], MANY))
    found = [matrix(where(told, a=a), "kl") for a in SEPARATIONS]
    samples = [column for errors, _ in found for column in errors.T]
    sizes = found[0][1]
    places = " and ".join(f"±{a:g}" for a in SEPARATIONS)

    def exponent(*kl: np.ndarray) -> float:
        means = np.reshape([np.mean(one) for one in kl], (len(found), -1))
        return float(np.mean(slope(sizes, means.T)))

    return judge(
        "The divergence of maximum likelihood falls as 1/m",
        "exponent of KL in m",
        _bootstrap(exponent, *samples),
        lambda b: b.low <= -1 <= b.high,
        figure="divergences",
        note=f"from m = {MANY} on, mean over modes at {places}; expected −1: the interval "
        "around it",
    )


def _biased(rows: pa.Table) -> Claim:
    told = where(rows, panel="pairs", learner="dsm1", m=PAIR_SIZES[-1])
    ratio = told["kl"].to_numpy() / told["kl_floor"].to_numpy()
    return judge(
        "Denoising learns the smoothed law, however many samples there are",
        f"KL(p ‖ flow) over KL(p ‖ q_σ) at σ = 1, m = {PAIR_SIZES[-1]}",
        _bootstrap(lambda found: float(np.mean(found)), ratio),
        lambda found: 0.8 <= found.value <= 1.25,
        figure="divergences",
        note="expected 1: within a quarter",
    )


def efficiency(rows: pa.Table, a: float, learner: str) -> Interval:
    """Returns the variance of an objective's estimates of a mode's weight over that of ML."""
    ours, theirs = (
        where(rows, panel="weights", a=a, learner=name)["theta"].to_numpy()
        for name in (learner, "ml")
    )
    return _bootstrap(lambda x, y: float(np.var(x) / np.var(y)), ours, theirs)


def _weights(rows: pa.Table) -> list[Claim]:
    told = where(rows, panel="weights")
    found = []
    for a in sorted(set(told["a"].to_pylist())):
        expected = mode_weight(a) / mode_weight_ml(a)
        within = efficiency(told, a, "ism")
        found.append(
            judge(
                f"Score matching loses a mode's weight as e^(a²/2) says, modes at ±{a:g}",
                "variance over that of maximum likelihood",
                within,
                lambda ratio, expected=expected: abs(ratio.value / expected - 1) <= 0.1,
                figure="efficiency",
                note=f"expected {expected:.3g}: within 10 %",
            )
        )
        found.append(
            judge(
                f"Noise as wide as the modes are apart brings it back, modes at ±{a:g}",
                f"variance of denoising at σ = {WEIGHT_NOISE:g} over that of maximum likelihood",
                efficiency(told, a, f"dsm{WEIGHT_NOISE:g}"),
                lambda ratio: ratio.value <= 1.5,
                figure="efficiency",
                note="expected at most 1.5",
            )
        )
    return found
