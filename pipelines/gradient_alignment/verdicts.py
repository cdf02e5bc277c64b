"""What the study claims, each judged by one number."""

__all__ = ["QUESTIONS", "Question", "claims", "overlap"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ebflow.alignment.regularisers import smallest_trace
from ebflow.estimate import Interval
from pipelines.gradient_alignment.table import Line, interval
from pipelines.reporting.claims import Claim, Verdict, judge, untested

Lines = Mapping[str, Line]

COMPARED = ("accuracy", "accuracy/noisy", "gradient", "trace", "A1", "A2", "A3", "DSM-cos", "relF",
            "GAN-test", "PP/own/raw", "PP/base/raw")  # fmt: skip
"""Columns in which two models are compared."""

FEWEST = 5
"""Models from which on their order is looked at."""


@dataclass(frozen=True)
class Question:
    """A claim, and how it is judged.

    Attributes:
        claim: One sentence.
        quantity: What the number is, with its unit.
        models: The models that it takes.
        values: From these to the number, a value a seed.
        holds: From its interval over seeds to whether the claim holds.
        figure: The figure that shows it.
        note: What was expected.
    """

    claim: str
    quantity: str
    models: tuple[str, ...]
    values: Callable[..., np.ndarray]
    holds: Callable[[Interval], bool]
    figure: str
    note: str = ""

    def judged(self, lines: Lines) -> Claim:
        """Returns the verdict; without a model, or of one seed alone, nothing is tested."""
        if set(self.models) <= lines.keys():
            values = self.values(*(lines[name] for name in self.models))
            if len(values) > 1 and np.isfinite(values).all():
                return judge(self.claim, self.quantity, interval(values), self.holds,
                             figure=self.figure, note=self.note)  # fmt: skip
        return untested(self.claim, self.quantity, note=self.note)


def claims(lines: Lines, quality: Mapping[str, float]) -> list[Claim]:
    """Returns all claims: on the reference, on the models, and on their order."""
    return [_sound(quality), *(asked.judged(lines) for asked in QUESTIONS), _ordered(lines)]


def _law(score: Line, free: Line) -> np.ndarray:
    """Returns ‖g‖ with the stability penalty over that without, over 1 / (1 + 2 μ T)."""
    mu = score.model.classifier.regulariser.stability
    law = 1 / (1 - 2 * mu * free.values("trace"))
    return score.values("gradient") / free.values("gradient") / law


def _invariance(baseline: Line, *fooled: Line) -> np.ndarray:
    """Returns the largest change of A3 and share of changed predictions, for every seed."""
    return np.max([np.abs(line.values("A3") - baseline.values("A3")) + 1
                   - line.values("change/same") for line in fooled], axis=0)  # fmt: skip


def _worst(score: Line, control: Line) -> np.ndarray:
    """Returns the largest overlap of a column, for every seed; a marginal reference has fewer."""
    gaps = np.array([overlap(score, control, metric) for metric in COMPARED])
    return np.full(len(score.seeds), np.max(gaps, where=~np.isnan(gaps), initial=0.0))


def overlap(one: Line, other: Line, metric: str) -> float:
    """Returns the distance of two means over the sum of their intervals' half-widths."""
    first, second = one.interval(metric), other.interval(metric)
    widths = first.high - first.value + second.high - second.value
    gap = abs(first.value - second.value)
    return gap / widths if widths else float(gap > 0)


def _explained(baseline: Line, score: Line, control: Line) -> np.ndarray:
    whole, part = (baseline.values("gradient") - m.values("gradient") for m in (score, control))
    return part / whole


def _depth(collapsed: Line) -> np.ndarray:
    """Returns the trace at the end of training over the floor of smoothed data."""
    floor = smallest_trace(collapsed.seeds[0].width, collapsed.model.classifier.smoothing)
    return np.array([one.epochs[-1]["probe/trace"] for one in collapsed.seeds]) / floor


def _gain(metric: str) -> Callable[[Line, Line], np.ndarray]:
    return lambda before, after: after.values(metric) - before.values(metric)


QUESTIONS = (
    Question(
        "Score matching by the stable recipe keeps the accuracy.",
        "accuracy of score",
        ("score",),
        lambda score: score.values("accuracy"),
        lambda found: found.value >= 0.95,
        "trade-off",
        "Expected on digits: at least 0.95.",
    ),
    Question(
        "Without a regulariser logit-gradients are not aligned with the scores of the data.",
        "A1 of baseline",
        ("baseline",),
        lambda baseline: baseline.values("A1"),
        lambda found: found.high <= 0.1,
        "alignment",
        "Expected: at most 0.1.",
    ),
    Question(
        "Score matching by the stable recipe aligns them.",
        "A1 of score",
        ("score",),
        lambda score: score.values("A1"),
        lambda found: found.low >= 0.7,
        "alignment",
        "Expected on digits: at least 0.7.",
    ),
    Question(
        "It is the trace and not the penalty on the gradient that aligns them.",
        "A1 of score less that of score-control",
        ("score-control", "score"),
        _gain("A1"),
        lambda found: found.low > 0,
        "alignment",
        "The control penalises gradients as strongly, without the trace.",
    ),
    Question(
        "The stability penalty shrinks gradients by the law 1 / (1 + 2 μ T).",
        "measured ratio of ‖g‖ over the law's",
        ("score", "score-free"),
        _law,
        lambda found: abs(found.value - 1) <= 0.05,
        "law",
        "T is minus the mean trace without the penalty; expected within 5 %.",
    ),
    Question(
        "A shift of all logits leaves A3 and every prediction.",
        "|A3 of fool-shift − A3 of baseline| + share of changed predictions",
        ("baseline", "fool-shift"),
        _invariance,
        lambda found: found.high <= 1e-3,
        "alignment",
        "Expected: at most 1e-3.",
    ),
    Question(
        "So do a quadratic and an oscillating one.",
        "the larger of the same of fool-quadratic and fool-sine",
        ("baseline", "fool-quadratic", "fool-sine"),
        _invariance,
        lambda found: found.high <= 1e-3,
        "alignment",
        "Expected: at most 1e-3.",
    ),
    Question(
        "A linear shift makes of the logit-gradients whatever one likes.",
        "relative change of the logit-gradient",
        ("fool-shift",),
        lambda fooled: fooled.values("change/logit_gradient"),
        lambda found: found.low > 1,
        "gradients",
        "A1 is then that of the pattern; the largest change of a posterior is in a table.",
    ),
    Question(
        "A ripple of one logit hardly changes a loss.",
        "largest change of a loss (nats)",
        ("fool-ripple",),
        lambda fooled: fooled.values("change/loss"),
        lambda found: found.value <= 1e-3,
        "alignment",
        "The bound is δ = 0.001.",
    ),
    Question(
        "The loss-gradients are then others.",
        "relative change of the loss-gradient",
        ("fool-ripple",),
        lambda fooled: fooled.values("change/loss_gradient"),
        lambda found: found.low > 1,
        "gradients",
    ),
    Question(
        "A pattern trained into the gradients costs little accuracy.",
        "accuracy of fool-weights less that of baseline",
        ("baseline", "fool-weights"),
        _gain("accuracy"),
        lambda found: found.low > -0.03,
        "gradients",
        "Expected: no less than −0.03.",
    ),
    Question(
        "One-sided score matching with the λ of the published code is a gradient-norm penalty at "
        "81 times it.",
        "largest difference of a column, over the half-widths of both intervals",
        ("code-score", "code-control"),
        _worst,
        lambda found: found.value <= 1,
        "disguise",
        "At most 1 where every column's intervals over seeds overlap.",
    ),
    Question(
        "So it is with the λ of the paper.",
        "the same of paper-score and paper-control",
        ("paper-score", "paper-control"),
        _worst,
        lambda found: found.value <= 1,
        "disguise",
        "This λ shrinks ‖g‖² until it no longer dwarfs the trace, which the control lacks.",
    ),
    Question(
        "With the λ of the paper it is that penalty beside score matching by a quiet estimator.",
        "the same of paper-score and paper-quiet",
        ("paper-score", "paper-quiet"),
        _worst,
        lambda found: found.value <= 1,
        "disguise",
        "The means of both losses are equal to leading order in σ, the noise of gradients is not.",
    ),
    Question(
        "What the paper's score matching does to gradients, that penalty does.",
        "fall of ‖g‖ from the baseline's, paper-control over paper-score",
        ("baseline", "paper-score", "paper-control"),
        _explained,
        lambda found: abs(found.value - 1) <= 0.1,
        "disguise",
        "Expected within 10 %.",
    ),
    Question(
        "The linear term that the one-sided estimator drops is nearly all of its noise.",
        "its deviation over that with the control variate, σ = 0.01",
        ("baseline",),
        lambda baseline: baseline.values("estimators/noise"),
        lambda found: found.low > 50,
        "estimators",
        "Expected: more than 50.",
    ),
    Question(
        "Anti-score-matching in the paper's setting shrinks gradients, against its purpose.",
        "‖g‖ of paper-anti over that of baseline",
        ("baseline", "paper-anti"),
        lambda baseline, anti: anti.values("gradient") / baseline.values("gradient"),
        lambda found: found.high < 1,
        "alignment",
        "Its σ is its code's, 0.001; the paper gives none.",
    ),
    Question(
        "With a quiet estimator anti-score-matching makes the trace positive.",
        "mean trace of anti",
        ("anti",),
        lambda anti: anti.values("trace"),
        lambda found: found.low > 0,
        "training",
    ),
    Question(
        "Without noise and penalty score matching collapses onto the training points.",
        "mean trace of a training batch over the floor −D/s²",
        ("collapse",),
        _depth,
        lambda found: found.low > 1,
        "training",
        "Above 1 the training is diagnosed as a collapse.",
    ),
    Question(
        "Pictures of activity maximisation are denser under the reference after score matching.",
        "log p / D of score less that of baseline (nats a dimension)",
        ("baseline", "score"),
        _gain("samples/log density"),
        lambda found: found.low > 0,
        "samples",
        "The GAN-test saturates on digits.",
    ),
    Question(
        "Aligned gradients are better at pixel perturbation, as in the paper.",
        "mean accuracy by raw gradients, score less baseline",
        ("baseline", "score"),
        _gain("PP/own/raw"),
        lambda found: found.low > 0,
        "perturbation",
        "Published for CIFAR-100.",
    ),
    Question(
        "At pixel perturbation the centred gradient of an aligned model is better than the raw.",
        "mean accuracy of score, centred less raw",
        ("score",),
        lambda score: score.values("PP/own/centred") - score.values("PP/own/raw"),
        lambda found: found.low > 0,
        "perturbation",
        "The raw gradient is mostly of the marginal density, in which background pixels have a "
        "large part.",
    ),
    Question(
        "A plain classifier takes noisy images for the denser ones, as in the paper.",
        "mean log density ratio of baseline, noise 0.3 (nats)",
        ("baseline",),
        lambda baseline: baseline.values("mean log ratio/0.3"),
        lambda found: found.low > 0,
        "ratios",
        "Published for CIFAR-100.",
    ),
)


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
    first, second = (
        np.stack([line.values(name) for line in lines.values()]) for name in ("A1", "DSM-cos")
    )
    known = np.isfinite(first + second).all(1)
    if known.sum() < FEWEST or first.shape[1] < 2:
        return untested(claim, quantity)
    pairs = zip(first[known].T, second[known].T, strict=True)
    found = interval(np.array([stats.spearmanr(*pair).statistic for pair in pairs]))
    return judge(claim, quantity, found, lambda f: f.low > 0.8, figure="alignment",
                 note="Expected: above 0.8.")  # fmt: skip
