"""What the study claims, each judged by one number."""

__all__ = ["claims", "overlap"]

from collections.abc import Callable, Mapping

import numpy as np
from scipy import stats

from ebflow.alignment.regularisers import smallest_trace
from ebflow.estimate import Interval
from pipelines.alignment.table import Line, interval
from pipelines.claims import Claim, Verdict, judge, untested

Lines = Mapping[str, Line]

COMPARED = ("accuracy", "accuracy/noisy", "gradient", "trace", "A1", "A2", "A3", "DSM-cos", "relF",
            "GAN-test", "PP/own/raw", "PP/base/raw")  # fmt: skip
"""Columns in which two models are compared."""

FEWEST = 5
"""Models from which on their order is looked at."""


def claims(lines: Lines, quality: Mapping[str, float]) -> list[Claim]:
    """Returns the claims; one whose models are missing, or of one seed alone, is not tested."""
    return [_sound(quality), *(judged(lines) for judged in _JUDGES), _ordered(lines)]


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


@_claim(
    "The linear term that the one-sided estimator drops is nearly all of its noise.",
    "its deviation over that with the control variate, σ = 0.01",
    lambda found: found.low > 50,
    "baseline",
    figure="estimators",
    note="Expected: more than 50.",
)
def _noisier(baseline: Line) -> np.ndarray:
    return baseline.values("estimators/noise")


@_claim(
    "Anti-score-matching in the paper's setting shrinks gradients, against its purpose.",
    "‖g‖ of paper-anti over that of baseline",
    lambda found: found.high < 1,
    "baseline",
    "paper-anti",
    figure="alignment",
    note="Its σ is its code's, 0.001; the paper gives none.",
)
def _backwards(baseline: Line, anti: Line) -> np.ndarray:
    return anti.values("gradient") / baseline.values("gradient")


@_claim(
    "With a quiet estimator anti-score-matching makes the trace positive.",
    "mean trace of anti",
    lambda found: found.low > 0,
    "anti",
    figure="alignment",
)
def _against(anti: Line) -> np.ndarray:
    return anti.values("trace")


@_claim(
    "Without noise and penalty score matching collapses onto the training points.",
    "mean trace of a training batch over the floor −D/s²",
    lambda found: found.low > 1,
    "collapse",
    figure="training",
    note="Above 1 the training is diagnosed as a collapse.",
)
def _collapsed(collapsed: Line) -> np.ndarray:
    noise = collapsed.model.classifier.smoothing
    traces = np.array([one.epochs[-1]["probe/trace"] for one in collapsed.seeds])
    return traces / smallest_trace(collapsed.seeds[0].width, noise)


@_claim(
    "Pictures of activity maximisation are denser under the reference after score matching.",
    "log p / D of score less that of baseline (nats a dimension)",
    lambda found: found.low > 0,
    "baseline",
    "score",
    figure="samples",
    note="The GAN-test saturates on digits.",
)
def _denser(baseline: Line, score: Line) -> np.ndarray:
    name = "samples/log density"
    return score.values(name) - baseline.values(name)


@_claim(
    "Aligned gradients are better at pixel perturbation, as the paper has it for CIFAR-100.",
    "mean accuracy by raw gradients, score less baseline",
    lambda found: found.low > 0,
    "baseline",
    "score",
    figure="perturbation",
)
def _perturbed(baseline: Line, score: Line) -> np.ndarray:
    return score.values("PP/own/raw") - baseline.values("PP/own/raw")


@_claim(
    "At pixel perturbation the centred gradient of an aligned model is better than the raw one.",
    "mean accuracy of score, centred less raw",
    lambda found: found.low > 0,
    "score",
    figure="perturbation",
    note="The raw gradient is mostly of the marginal density, of which background pixels have a "
    "large part.",
)
def _restored(score: Line) -> np.ndarray:
    return score.values("PP/own/centred") - score.values("PP/own/raw")


@_claim(
    "A plain classifier takes noisy images for the denser ones, as in the paper.",
    "mean log density ratio of baseline, noise 0.3 (nats)",
    lambda found: found.low > 0,
    "baseline",
    figure="ratios",
)
def _noise_is_dense(baseline: Line) -> np.ndarray:
    return baseline.values("mean log ratio/0.3")


@_claim(
    "A pattern trained into the gradients costs little accuracy.",
    "accuracy of fool-weights less that of baseline",
    lambda found: found.low > -0.03,
    "baseline",
    "fool-weights",
    figure="gradients",
    note="Expected: no less than −0.03.",
)
def _trained_in(baseline: Line, fooled: Line) -> np.ndarray:
    return fooled.values("accuracy") - baseline.values("accuracy")


def _sound(quality: Mapping[str, float]) -> Claim:
    """Judges the reference by its posterior."""
    claim, quantity = "The reference flows are good class densities.", "their Bayes accuracy"
    found = quality.get("reference/accuracy")
    if found is None:
        return untested(claim, quantity, note="The reference is the marginal density alone.")
    verdict: Verdict = "holds" if found >= 0.9 else "does not hold"
    return Claim(claim, verdict, quantity, found, note="Expected on digits: at least 0.9.")


def _ordered(lines: Lines) -> Claim:
    """Judges the check that needs no reference by the order of the models."""
    claim = "The DSM cosine, which needs no reference, orders the models as A1 does."
    quantity = "Spearman's rank correlation over models"
    values = [
        np.stack([line.values(name) for line in lines.values()]) for name in ("A1", "DSM-cos")
    ]
    known = np.isfinite(values).all((0, 2))
    if known.sum() < FEWEST or values[0].shape[1] < 2:
        return untested(claim, quantity)
    pairs = zip(values[0][known].T, values[1][known].T, strict=True)
    found = interval(np.array([stats.spearmanr(*pair).statistic for pair in pairs]))
    return judge(claim, quantity, found, lambda f: f.low > 0.8, figure="alignment",
                 note="Expected: above 0.8.")  # fmt: skip


def overlap(one: Line, other: Line, metric: str) -> float:
    """Returns the distance of two means over the sum of their intervals' half-widths."""
    first, second = one.interval(metric), other.interval(metric)
    widths = first.high - first.value + second.high - second.value
    gap = abs(first.value - second.value)
    return gap / widths if widths else float(gap > 0)
