"""What the study asks and concludes: questions with bounds, fixed before a run, paired by seed.

A1 is told beside that of the baseline with a class-blind density on every logit, which trains
nothing and changes no prediction: what is left over it is of the classes.
"""

__all__ = ["Asked", "CHECKS", "QUESTIONS", "conclude"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ebflow.alignment.regularisers import smallest_trace
from ebflow.inference import Confidence, Region, above, below, bootstrap, student, within
from pipelines.gradient_alignment.models import BLIND
from pipelines.gradient_alignment.table import Line
from pipelines.reporting.claims import Check, Claim, Conclusion, Question, decide

Lines = Mapping[str, Line]
Values = Callable[..., np.ndarray]

FEWEST = 8
"""Trainings from which on their order is looked at."""

A1, A3, SHARE, ACCURACY = 0.05, 0.05, 0.9, 0.02
"""Least differences that matter: of cosines, of a share of a gain, of accuracies."""


@dataclass(frozen=True)
class Asked:
    """A question of some models, answered by a number a seed.

    Attributes:
        question: The question.
        models: The models that it takes.
        values: From these to a number a seed.
    """

    question: Question
    models: tuple[str, ...]
    values: Values

    def found(self, lines: Lines) -> Confidence | None:
        """Returns the mean over seeds; None where one diverged or lacks the number."""
        values = self.values(*(lines[name] for name in self.models))
        return student(values) if np.isfinite(values).all() else None


def _of(metric: str) -> Values:
    return lambda line: line.values(metric)


def _gain(metric: str) -> Callable[[Line, Line], np.ndarray]:
    """Returns a metric of the second model less that of the first."""
    return lambda before, after: after.values(metric) - before.values(metric)


def _ratio(metric: str) -> Callable[[Line, Line], np.ndarray]:
    return lambda before, after: after.values(metric) / before.values(metric)


def _share(baseline: Line, blind: Line, score: Line) -> np.ndarray:
    """Returns the part of score's gain in A1 that a class-blind density has."""
    start = baseline.values("A1")
    return (blind.values("A1") - start) / (score.values("A1") - start)


def _explained(baseline: Line, score: Line, control: Line) -> np.ndarray:
    whole, part = (baseline.values("gradient") - m.values("gradient") for m in (score, control))
    return part / whole


def _law(score: Line, free: Line) -> np.ndarray:
    """Returns ‖g‖ with the stability penalty over that without, over 1 / (1 + 2 μ T)."""
    mu = score.model.classifier.regulariser.stability
    law = 1 / (1 - 2 * mu * free.values("trace"))
    return score.values("gradient") / free.values("gradient") / law


def _depth(collapsed: Line) -> np.ndarray:
    """Returns the trace at the end of training over the floor of smoothed data."""
    floor = smallest_trace(collapsed.seeds[0].width, collapsed.model.classifier.smoothing)
    ends = [one.epochs[-1]["probe/trace"] if one.epochs else np.nan for one in collapsed.seeds]
    return np.array(ends) / floor


GAUSSIAN, FLOW = BLIND["gaussian"], BLIND["flow"]

QUESTIONS = (
    Asked(
        Question(
            "Nearly all that score matching gains in A1, a class-blind Gaussian gives to the "
            "baseline, whose predictions stay.",
            "share of the gain in A1 over the baseline",
            above(SHARE, margin=0.1),
            figure="gauge",
            note="The Gaussian has the mean and covariance of all training rows, and is trained "
            "on nothing.",
        ),
        ("baseline", GAUSSIAN, "score"),
        _share,
    ),
    Asked(
        Question(
            "Score matching aligns logit-gradients with the class's score better than that.",
            "A1 of score less that of blind-gaussian",
            above(A1),
            figure="gauge",
        ),
        (GAUSSIAN, "score"),
        _gain("A1"),
    ),
    Asked(
        Question(
            "And better than a class-blind flow added to the baseline.",
            "A1 of score less that of blind-flow",
            above(A1),
            figure="gauge",
        ),
        (FLOW, "score"),
        _gain("A1"),
    ),
    Asked(
        Question(
            "In what no gauge reaches, score matching aligns more than cross-entropy alone.",
            "A3 of score less that of baseline",
            above(A3),
            figure="gauge",
        ),
        ("baseline", "score"),
        _gain("A3"),
    ),
    Asked(
        Question(
            "There it aligns more than the gradient-norm penalty of equal strength.",
            "A3 of score less that of score-control",
            above(A3),
            figure="gauge",
            note="The control penalises gradients as strongly, without the trace.",
        ),
        ("score-control", "score"),
        _gain("A3"),
    ),
    Asked(
        Question(
            "There it comes nearer to the scores than that penalty does.",
            "relF-opt of centred gradients, score less score-control",
            below(-0.05),
            figure="gauge",
            note="Squared distance after the best scale, over the scores' mean square.",
        ),
        ("score-control", "score"),
        _gain("relF-opt/centred"),
    ),
    Asked(
        Question(
            "Score matching on the centred logit, which has no gauge, raises A3.",
            "A3 of centred less that of baseline",
            above(A3),
            figure="gauge",
        ),
        ("baseline", "centred"),
        _gain("A3"),
    ),
    Asked(
        Question(
            "What it aligns instead is the centred gradient with the class's whole score.",
            "cosine of the two, centred less baseline",
            above(0.2),
            figure="gauge",
        ),
        ("baseline", "centred"),
        _gain("A1/centred"),
    ),
    Asked(
        Question(
            "Score matching costs no accuracy that matters.",
            "accuracy of score less that of baseline",
            above(-ACCURACY),
            figure="trade-off",
        ),
        ("baseline", "score"),
        _gain("accuracy"),
    ),
    Asked(
        Question(
            "One-sided score matching with the λ of the published code is a gradient-norm penalty "
            "at 81 times it: gradients are as long.",
            "‖g‖ of code-control over that of code-score",
            within(0.1, of=1),
            figure="disguise",
        ),
        ("code-score", "code-control"),
        _ratio("gradient"),
    ),
    Asked(
        Question(
            "And no better aligned.",
            "A3 of code-score less that of code-control",
            within(0.02),
            figure="disguise",
        ),
        ("code-control", "code-score"),
        _gain("A3"),
    ),
    Asked(
        Question(
            "With the λ of the paper that penalty explains the fall of ‖g‖.",
            "fall of ‖g‖ from the baseline's, paper-control over paper-score",
            within(0.1, of=1),
            figure="disguise",
        ),
        ("baseline", "paper-score", "paper-control"),
        _explained,
    ),
    Asked(
        Question(
            "And A3.",
            "A3 of paper-score less that of paper-control",
            within(0.02),
            figure="disguise",
        ),
        ("paper-control", "paper-score"),
        _gain("A3"),
    ),
    Asked(
        Question(
            "The stability penalty shrinks gradients by the law 1 / (1 + 2 μ T).",
            "measured ratio of ‖g‖ over the law's",
            within(0.05, of=1),
            figure="law",
            note="T is minus the mean trace without the penalty.",
        ),
        ("score", "score-free"),
        _law,
    ),
    Asked(
        Question(
            "Anti-score-matching in the paper's setting shrinks gradients, against its purpose.",
            "‖g‖ of paper-anti over that of baseline",
            below(0.9, margin=0.1),
            figure="alignment",
            note="Its σ is its code's, 0.001; the paper gives none.",
        ),
        ("baseline", "paper-anti"),
        _ratio("gradient"),
    ),
    Asked(
        Question(
            "Without noise and penalty score matching collapses onto the training points.",
            "mean trace of a training batch over the floor −D/s²",
            above(1),
            figure="training",
        ),
        ("collapse",),
        _depth,
    ),
    Asked(
        Question(
            "A pattern trained into the gradients costs no accuracy that matters.",
            "accuracy of fool-weights less that of baseline",
            above(-ACCURACY),
            figure="gradients",
        ),
        ("baseline", "fool-weights"),
        _gain("accuracy"),
    ),
    Asked(
        Question(
            "Pictures of activity maximisation are denser after score matching than with a "
            "class-blind Gaussian.",
            "log p / D under the reference, score less blind-gaussian",
            above(0.1),
            "nats a dimension",
            figure="samples",
        ),
        (GAUSSIAN, "score"),
        _gain("samples/log density"),
    ),
    Asked(
        Question(
            "Gradients of score matching are better at pixel perturbation, as in the paper.",
            "accuracy by raw gradients, score less baseline",
            above(ACCURACY),
            figure="perturbation",
            note="Published for CIFAR-100.",
        ),
        ("baseline", "score"),
        _gain("PP/own/raw"),
    ),
    Asked(
        Question(
            "A class-blind Gaussian alone makes them worse: the test measures the gauge.",
            "accuracy by raw gradients, blind-gaussian less baseline",
            below(-ACCURACY),
            figure="perturbation",
        ),
        ("baseline", GAUSSIAN),
        _gain("PP/own/raw"),
    ),
    Asked(
        Question(
            "A plain classifier takes noisy images for the denser ones, as in the paper.",
            "mean log density ratio of baseline, noise 0.3",
            above(0.5),
            "nats",
            figure="ratios",
            note="Published for CIFAR-100.",
        ),
        ("baseline",),
        _of("mean log ratio/0.3"),
    ),
)
"""The questions of means over seeds."""


@dataclass(frozen=True)
class Order:
    """A question of the order of trainings by two metrics: their rank correlation.

    Attributes:
        question: The question.
        metrics: The two.
    """

    question: Question
    metrics: tuple[str, str]

    def found(self, lines: Lines) -> Confidence | None:
        """Returns the correlation of means over seeds, its units being the trainings.

        None of fewer than ``FEWEST``, or of metrics that were not measured. A collapsed training
        is left out.
        """
        pairs = np.array(
            [[line.values(name).mean() for name in self.metrics]
             for line in _trainings(lines) if not line.diagnosis]
        )  # fmt: skip
        pairs = pairs[np.isfinite(pairs).all(1)]
        if len(pairs) < FEWEST:
            return None
        return bootstrap(lambda rows: float(stats.spearmanr(rows).statistic), pairs)


def _trainings(lines: Lines) -> list[Line]:
    """Returns the models that are trainings of their own, and no shifts of logits."""
    return [one for one in lines.values() if one.model.shift.name == "none"]


ORDERS = (
    Order(
        Question(
            "Pixel perturbation by centred gradients follows A3.",
            "rank correlation over models",
            above(0.5, margin=0.4),
            figure="follows",
            note="Each model's own judge; means over seeds.",
        ),
        ("A3", "PP/own/centred"),
    ),
    Order(
        Question(
            "Pixel perturbation by raw gradients follows A1, the hypothesis of the paper.",
            "rank correlation over models",
            above(0.5, margin=0.4),
            figure="follows",
            note="Each model's own judge; means over seeds.",
        ),
        ("A1", "PP/own/raw"),
    ),
    Order(
        Question(
            "Robustness off the manifold orders the models as A3 does.",
            "rank correlation over models",
            above(0.5, margin=0.4),
            figure="alignment",
            note="Of centred logits, off the principal directions that have 95 % of the variance.",
        ),
        ("A3", "off-manifold"),
    ),
    Order(
        Question(
            "The DSM cosine, which needs no reference, orders the models as A1 does.",
            "rank correlation over models",
            above(0.8, margin=0.15),
            figure="alignment",
        ),
        ("A1", "DSM-cos"),
    ),
)
"""The questions of the order of models."""


@dataclass(frozen=True)
class Examined:
    """A check of the instrument by the worst seed of some models.

    Attributes:
        check: One sentence.
        quantity: What the number is, with its unit.
        expected: Where it should be.
        models: The models that it takes.
        values: From these to a number a seed.
        worst: From these to the one that is told.
    """

    check: str
    quantity: str
    expected: Region
    models: tuple[str, ...]
    values: Values
    worst: Callable[[np.ndarray], float] = np.max

    def found(self, lines: Lines) -> Check:
        """Returns whether it passed."""
        value = self.worst(self.values(*(lines[name] for name in self.models)))
        return Check.of(self.check, self.quantity, float(value), self.expected)


def _changed(baseline: Line, *shifted: Line) -> np.ndarray:
    """Returns the largest change of A3 and share of changed predictions, for every seed."""
    return np.max([np.abs(line.values("A3") - baseline.values("A3")) + 1
                   - line.values("change/same") for line in shifted], axis=0)  # fmt: skip


CHECKS = (
    Examined(
        "A class-blind density on every logit leaves A3 and every prediction.",
        "|change of A3| + share of changed predictions",
        below(1e-3),
        ("baseline", *BLIND.values()),
        _changed,
    ),
    Examined(
        "So does a pattern.",
        "the same of fool-shift",
        below(1e-3),
        ("baseline", "fool-shift"),
        _changed,
    ),
    Examined(
        "So do a quadratic and an oscillating one.",
        "the larger of the same of fool-quadratic and fool-sine",
        below(1e-3),
        ("baseline", "fool-quadratic", "fool-sine"),
        _changed,
    ),
    Examined(
        "A linear shift makes of the logit-gradients whatever one likes.",
        "relative change of the logit-gradient",
        above(1),
        ("fool-shift",),
        _of("change/logit_gradient"),
        np.min,
    ),
    Examined(
        "A ripple of one logit changes a loss by its δ = 0.001 at most.",
        "largest change of a loss (nats)",
        below(1.001e-3),
        ("fool-ripple",),
        _of("change/loss"),
    ),
    Examined(
        "The loss-gradients are then others.",
        "relative change of the loss-gradient",
        above(1),
        ("fool-ripple",),
        _of("change/loss_gradient"),
        np.min,
    ),
    Examined(
        "The linear term that the one-sided estimator drops is nearly all of its noise.",
        "its deviation over that with the control variate, σ = 0.01",
        above(50),
        ("baseline",),
        _of("estimators/noise"),
        np.min,
    ),
    Examined(
        "Gradients of one point are not aligned with the scores of another.",
        "|A3| with the scores of other points, baseline",
        below(0.1),
        ("baseline",),
        lambda baseline: np.abs(baseline.values("A3/shuffled")),
    ),
)
"""The checks of the instrument besides that of the reference."""


def conclude(lines: Lines, quality: Mapping[str, float]) -> Conclusion:
    """Returns what the measured models say.

    Arguments:
        lines: The models by name, the baseline and the class-blind ones among them.
        quality: The numbers of the reference and of the class-blind densities.
    """
    asked = [(one.question, one.found(lines)) for one in _posed(QUESTIONS, lines)]
    if len(_trainings(lines)) >= FEWEST:
        asked += [(one.question, one.found(lines)) for one in ORDERS]
    claims = decide(asked)
    checks = [_sound(quality), *(one.found(lines) for one in _posed(CHECKS, lines))]
    return Conclusion(_findings(lines, claims), tuple(claims), tuple(checks), WOULD_CHANGE)


def _posed(all_of: Sequence[Any], lines: Lines) -> list[Any]:
    """Returns those questions or checks whose models are there."""
    return [one for one in all_of if set(one.models) <= lines.keys()]


def _sound(quality: Mapping[str, float]) -> Check:
    """Judges the reference by its posterior."""
    return Check.of(
        "The reference flows are good class densities.",
        "their Bayes accuracy at noisy test points",
        quality.get("reference/accuracy"),
        above(0.9),
        "Not measured of a marginal density alone.",
    )


def _findings(lines: Lines, claims: Sequence[Claim]) -> tuple[str, ...]:
    """Returns three sentences with the measured numbers; fewer where models are missing."""
    known = {claim.quantity: claim for claim in claims if claim.value is not None}
    sentences = [
        _sentence(
            known,
            "A class-blind Gaussian on the logits of a plain classifier, which trains nothing and "
            f"changes no prediction, has an A1 of {_mean(lines, GAUSSIAN, 'A1')}, beside "
            f"{_mean(lines, 'score', 'A1')} of score matching and "
            f"{_mean(lines, 'baseline', 'A1')} of the classifier as it is: of the gain {{}} is a "
            "matter of gauge, and over a class-blind flow {} is left.",
            "share of the gain in A1 over the baseline",
            "A1 of score less that of blind-flow",
        ),
        _sentence(
            known,
            "In A3, which no gauge reaches, score matching is {} above cross-entropy alone and {} "
            "above a gradient-norm penalty of equal strength ({verdict}).",
            "A3 of score less that of baseline",
            "A3 of score less that of score-control",
        ),
        _sentence(
            known,
            "On the centred logit, where it has no gauge to fit, score matching changes A3 by {}; "
            "a class-blind Gaussian alone changes pixel perturbation by raw gradients by {}.",
            "A3 of centred less that of baseline",
            "accuracy by raw gradients, blind-gaussian less baseline",
        ),
    ]
    return tuple(filter(None, sentences))


def _sentence(known: Mapping[str, Claim], text: str, *quantities: str) -> str:
    """Returns the text with the numbers of claims, ``verdict`` that of the last; or nothing."""
    if not set(quantities) <= known.keys():
        return ""
    found = [known[name] for name in quantities]
    margin = f"{found[-1].verdict} at a margin of {found[-1].margin:g}"
    return text.format(*(claim.told for claim in found), verdict=margin)


def _mean(lines: Lines, name: str, metric: str) -> str:
    return f"{lines[name].interval(metric).value:.3f}" if name in lines else ""


WOULD_CHANGE = (
    "Data on which a class-blind density is a bad one of every class: there the gauge gives less, "
    "and A1 has more to say.",
    "A reference nearer to the truth than these flows, whose Bayes accuracy and log-density are "
    "told: A3 is the cosine with a difference of their scores.",
    "Other strengths λ of score matching and of its control, which are compared at one, the "
    "recommended.",
    "A regulariser that is told the other classes' scores at a point, and so could fit the "
    "centred score itself.",
)
