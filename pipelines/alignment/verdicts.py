"""What the study claims, each judged by a number; and the tables beside the claims."""

__all__ = ["claims", "intro", "tables"]

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ebflow.estimate import Interval
from pipelines.alignment.config import AlignmentConfig
from pipelines.alignment.measures import COSTS, STEPS
from pipelines.alignment.table import COLUMNS, Line, interval
from pipelines.claims import Claim, Table, judge, untested

Lines = Mapping[str, Line]

COMPARED = ("accuracy", "accuracy/noisy", "gradient", "trace", "A1", "A2", "A3", "DSM-cos", "relF",
            "GAN-test", "PP/own/raw", "PP/base/raw")  # fmt: skip
"""Columns in which two models are compared."""


def claims(lines: Lines, quality: Mapping[str, float]) -> list[Claim]:
    """Returns the claims; one whose models are missing, or of one seed alone, is not tested."""
    return [judged(lines) for judged in _JUDGES]


_JUDGES: list[Callable[[Lines], Claim]] = []


def _claim(
    claim: str,
    quantity: str,
    holds: Callable[[Interval], bool],
    *needed: str,
    figure: str,
    note: str = "",
) -> Callable[[Callable[..., np.ndarray]], Callable[..., np.ndarray]]:
    """Enters a claim judged by a quantity of some models, a value a seed."""

    def enter(quantity_of: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def judged(lines: Lines) -> Claim:
            if not set(needed) <= lines.keys():
                return untested(claim, quantity, note=note)
            values = quantity_of(*(lines[name] for name in needed))
            if len(values) < 2 or not np.isfinite(values).all():
                return untested(claim, quantity, note=note)
            return judge(claim, quantity, interval(values), holds, figure=figure, note=note)

        _JUDGES.append(judged)
        return quantity_of

    return enter


@_claim(
    "Score matching by the stable recipe keeps the accuracy.",
    "accuracy of score",
    lambda found: found.value >= 0.95,
    "score",
    figure="trade-off",
    note="Expected on digits: at least 0.95.",
)
def _accuracy(score: Line) -> np.ndarray:
    return score.values("accuracy")


@_claim(
    "Without a regulariser logit-gradients are not aligned with the scores of the data.",
    "A1 of baseline",
    lambda found: found.high <= 0.1,
    "baseline",
    figure="alignment",
    note="Expected: at most 0.1.",
)
def _baseline(baseline: Line) -> np.ndarray:
    return baseline.values("A1")


@_claim(
    "Score matching by the stable recipe aligns them.",
    "A1 of score",
    lambda found: found.low >= 0.7,
    "score",
    figure="alignment",
    note="Expected on digits: at least 0.7.",
)
def _aligned(score: Line) -> np.ndarray:
    return score.values("A1")


@_claim(
    "It is the trace and not the penalty on the gradient that aligns them.",
    "A1 of score less that of score-control",
    lambda found: found.low > 0,
    "score",
    "score-control",
    figure="alignment",
    note="The control penalises gradients as strongly, without the trace.",
)
def _controlled(score: Line, control: Line) -> np.ndarray:
    return score.values("A1") - control.values("A1")


@_claim(
    "The stability penalty shrinks gradients by the law 1 / (1 + 2 μ T).",
    "measured ratio of ‖g‖ over the law's",
    lambda found: abs(found.value - 1) <= 0.05,
    "score",
    "score-free",
    figure="law",
    note="T is minus the mean trace without the penalty; within 5 %.",
)
def _law(score: Line, free: Line) -> np.ndarray:
    mu = score.model.classifier.regulariser.stability
    law = 1 / (1 - 2 * mu * free.values("trace"))
    return score.values("gradient") / free.values("gradient") / law


@_claim(
    "A shift of all logits leaves A3 and every prediction.",
    "|A3 of fool-shift − A3 of baseline| + share of changed predictions",
    lambda found: found.high <= 1e-3,
    "baseline",
    "fool-shift",
    figure="alignment",
    note="Expected: at most 1e-3.",
)
def _invariant(baseline: Line, fooled: Line) -> np.ndarray:
    changed = 1 - fooled.values("fooled/same")
    return np.abs(fooled.values("A3") - baseline.values("A3")) + changed


@_claim(
    "The same shift makes of the logit-gradients whatever one likes.",
    "relative change of the logit-gradient",
    lambda found: found.low > 1,
    "fool-shift",
    figure="gradients",
    note="A1 is then that of the pattern; the largest change of a posterior is in the table.",
)
def _fooled(fooled: Line) -> np.ndarray:
    return fooled.values("fooled/logit_gradient")


@_claim(
    "A ripple of one logit changes loss-gradients and hardly a loss.",
    "largest change of a loss (nats)",
    lambda found: found.high <= 2e-3,
    "fool-ripple",
    figure="gradients",
    note="The bound is 2 δ = 0.002; the change of the loss-gradient is in the table.",
)
def _rippled(fooled: Line) -> np.ndarray:
    return fooled.values("fooled/loss")


@_claim(
    "The paper's one-sided score matching is a gradient-norm penalty of 81 times its strength.",
    "largest difference of a column, over the half-widths of both intervals",
    lambda found: found.value <= 1,
    "paper-score",
    "paper-control",
    figure="disguise",
    note="Every column's intervals over seeds overlap if it is at most 1.",
)
def _disguised(score: Line, control: Line) -> np.ndarray:
    worst = max(overlap(score, control, metric) for metric in COMPARED)
    return np.full(len(score.seeds), worst)


def overlap(one: Line, other: Line, metric: str) -> float:
    """Returns the distance of two means over the sum of their intervals' half-widths."""
    first, second = one.interval(metric), other.interval(metric)
    widths = first.high - first.value + second.high - second.value
    gap = abs(first.value - second.value)
    return gap / widths if widths else float(gap > 0)


def intro(config: AlignmentConfig, lines: Lines) -> str:
    """Returns what was studied, in a few sentences."""
    first = next(iter(lines.values()))
    return (
        f"Classifiers ({first.model.classifier.net.name}) of {config.data.source} and the "
        "gradients of their true-class logits, which are scores of an implicit class-conditional "
        "density, beside the exact scores of reference flows of the data smoothed by noise of "
        f"{config.noise:g}. A1 is the cosine with the score of the class, A2 that of the "
        "marginals, A3 that of class-mean-centred gradients, which no shift of the logits moves."
    )


def tables(lines: Lines, quality: Mapping[str, float]) -> list[Table]:
    """Returns the models with their intervals, the controls, and the trace estimators."""
    return [_models(lines), _reference(quality), *_estimators(lines)]


def _models(lines: Lines) -> Table:
    rows = [
        (name, *(_told(line.interval(c.metric), c.digits) for c in COLUMNS))
        for name, line in lines.items()
    ]
    return Table(
        "Models",
        ("model", *(column.heading for column in COLUMNS)),
        rows,
        "Means over seeds ± 95 % intervals. PP: mean accuracy while the least salient pixels are "
        "filled in, by own or class-mean-centred gradients, judged by the model or the baseline; "
        "log p / D: log-density of ascended pictures under the reference, nats a dimension.",
    )


def _told(found: Interval, digits: int) -> str:
    if np.isnan(found.value):
        return ""
    half = found.high - found.value
    return f"{found.value:.{digits}f}" + ("" if np.isnan(half) else f" ± {half:.{digits}f}")


def _reference(quality: Mapping[str, float]) -> Table:
    rows = [(name.removeprefix("reference/"), f"{v:.4g}") for name, v in quality.items()]
    return Table(
        "Reference flows", ("quantity", "value"), rows, "Log-densities: nats a dimension."
    )


def _estimators(lines: Lines) -> list[Table]:
    arrays = lines["baseline"].seeds[0].arrays
    names = [name for name in arrays if name.startswith("estimators/") and name.count("/") == 2]
    if not names:
        return []
    rows: list[Sequence[str]] = []
    exact = float(arrays["estimators/trace"])
    for name in names:
        _, estimator, kind = name.split("/")
        cells = [f"{mean - exact:+.2f}, {deviation:.1f}" for mean, deviation in arrays[name]]
        rows.append((f"{estimator}, {kind}", COSTS[estimator], *cells))
    return [
        Table(
            "Trace estimators",
            ("estimator", "passes", *(f"σ = {step:g}" for step in STEPS)),
            rows,
            f"Bias and deviation of one estimate; the mean trace is {exact:.2f}.",
        )
    ]
