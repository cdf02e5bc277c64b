"""What the study asks: claims with the number that decides each, and bounds fixed before a run.

A1 is told beside that of the baseline with a class-blind density on every logit, which trains
nothing and changes no prediction: what is left over it is of the classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ebflow.inference import Region, above, below, within
from pipelines.gradient_alignment.comparisons import (
    DEPTH,
    EXPLAINED,
    LAW,
    SHARE,
    Lines,
    Number,
    changed,
    explained,
    less,
    of,
    order,
    ratio,
)
from pipelines.gradient_alignment.models import BASELINE, BLIND, CLIP
from pipelines.reporting.claims import Check, Question

A1, A3, ACCURACY = 0.05, 0.05, 0.02
"""Least differences that matter: of cosines, and of accuracies."""

GAUSSIAN, FLOW = BLIND["gaussian"], BLIND["flow"]
OWN = "Each model is its own judge."
MANIFOLD = "Of centred logits, off the principal directions that have 95 % of the variance."
CIFAR = "Published for CIFAR-100."
CLIPPED = f"Score matching's steps are clipped at a norm of {CLIP:g}, the baseline's are not."
OUTLIERS = "Published is the mean ratio, which outliers dominate: a table has its logarithm too."

OVER_FLOW = less("A1", "score", FLOW)
OVER_BASELINE = less("A3", "score", BASELINE)
OVER_CONTROL = less("A3", "score", "score-control")
OF_CENTRED = less("A3", "centred", BASELINE)
GAUSSIAN_ALONE = less("PP/own/raw", GAUSSIAN, BASELINE, "accuracy by raw gradients")


@dataclass(frozen=True)
class Hypothesis:
    """A claim and what decides it.

    Attributes:
        claim: One sentence.
        number: The number.
        expected: Where it is if the claim holds.
        figure: The name of the figure that shows it.
        note: How it is measured, and why the bounds are these.
        units: Of the number; empty of a pure one.
    """

    claim: str
    number: Number
    expected: Region
    figure: str
    note: str = ""
    units: str = ""

    @property
    def question(self) -> Question:
        """The claim before its number is measured."""
        shown = self.units, self.figure, self.note
        return Question(self.claim, self.number.quantity, self.expected, *shown)


QUESTIONS = (
    Hypothesis("Nearly all that score matching gains in A1, a class-blind Gaussian gives to the "
               "baseline, whose predictions stay.",
               SHARE, above(0.9, margin=0.1), "gauge",
               "The Gaussian has the mean and covariance of all training rows, and is trained on "
               f"nothing. {CLIPPED}"),
    Hypothesis("Score matching aligns logit-gradients with the class's score better than that.",
               less("A1", "score", GAUSSIAN), above(A1), "gauge"),
    Hypothesis("And better than a class-blind flow added to the baseline.",
               OVER_FLOW, above(A1), "gauge"),
    Hypothesis("In what no gauge reaches, score matching aligns more than cross-entropy alone.",
               OVER_BASELINE, above(A3), "gauge", CLIPPED),
    Hypothesis("There it aligns more than the gradient-norm penalty of equal strength.",
               OVER_CONTROL, above(A3), "gauge",
               "The control penalises gradients as strongly, without the trace."),
    Hypothesis("There it comes nearer to the scores than that penalty does.",
               less("relF-opt/centred", "score", "score-control", "relF-opt of centred gradients"),
               below(-0.05), "gauge",
               "Squared distance after the best scale, over the scores' mean square."),
    Hypothesis("Score matching on the centred logit, which has no gauge, raises A3.",
               OF_CENTRED, above(A3), "gauge", CLIPPED),
    Hypothesis("What it aligns instead is the centred gradient with the class's whole score.",
               less("A1/centred", "centred", BASELINE, "cosine of the two"), above(0.2), "gauge",
               CLIPPED),
    Hypothesis("Score matching costs no accuracy that matters.",
               less("accuracy", "score", BASELINE), above(-ACCURACY), "trade-off", CLIPPED),
    Hypothesis("One-sided score matching with the λ of the published code is a gradient-norm "
               "penalty at 81 times it: gradients are as long.",
               ratio("code-control", "code-score"), within(0.1, of=1), "disguise"),
    Hypothesis("And no better aligned.",
               less("A3", "code-score", "code-control"), within(0.02), "disguise"),
    Hypothesis("With the λ of the paper that penalty explains the fall of ‖g‖.",
               EXPLAINED, within(0.1, of=1), "disguise"),
    Hypothesis("And A3.",
               less("A3", "paper-score", "paper-control"), within(0.02), "disguise"),
    Hypothesis("Anti-score-matching in the paper's setting shrinks gradients, against its "
               "purpose.",
               ratio("paper-anti", BASELINE), below(0.9, margin=0.1), "alignment",
               "Its σ is its code's, 0.001; the paper gives none."),
    Hypothesis("A pattern trained into the gradients costs no accuracy that matters.",
               less("accuracy", "fool-weights", BASELINE), above(-ACCURACY), "gradients"),
    Hypothesis("Pictures of activity maximisation are denser after score matching than with a "
               "class-blind Gaussian.",
               less("samples/log density", "score", GAUSSIAN, "log p / D under the reference"),
               above(0.1), "samples", units="nats a dimension"),
    Hypothesis("Gradients of score matching are better at pixel perturbation, as in the paper.",
               less("PP/own/raw", "score", BASELINE, "accuracy by raw gradients"), above(ACCURACY),
               "perturbation", f"{CIFAR} {CLIPPED}"),
    Hypothesis("A class-blind Gaussian alone makes them worse: the test is not invariant under "
               "the gauge.",
               GAUSSIAN_ALONE, below(-ACCURACY), "perturbation"),
    Hypothesis("A plain classifier takes noisy images for the denser ones, as in the paper.",
               of("mean log ratio/0.3", BASELINE, "mean log density ratio of baseline, noise 0.3"),
               above(0.5), "ratios", f"{CIFAR} {OUTLIERS}", "nats"),
    Hypothesis("Among the models of this study pixel perturbation by centred gradients follows "
               "A3.",
               order("A3", "PP/own/centred"), above(0.5, margin=0.4), "follows", OWN),
    Hypothesis("Among them pixel perturbation by raw gradients follows A1, the hypothesis of the "
               "paper.",
               order("A1", "PP/own/raw"), above(0.5, margin=0.4), "follows", OWN),
    Hypothesis("Among them robustness off the manifold has the order of A3.",
               order("A3", "off-manifold"), above(0.5, margin=0.4), "alignment", MANIFOLD),
    Hypothesis("Among them robustness off the manifold explains A3 better than the kind of "
               "regulariser does.",
               explained("A3", "off-manifold"), above(0.1), "alignment",
               f"{MANIFOLD} Kinds: none, score matching, its opposite, gradient norm (also "
               "score matching that is one in disguise) and a target gradient, on the logit or "
               "centred."),
    Hypothesis("Among them the DSM cosine, which needs no reference, has the order of A1.",
               order("A1", "DSM-cos"), above(0.8, margin=0.15), "alignment"),
)  # fmt: skip
"""The claims, asked where their models are there."""


@dataclass(frozen=True)
class Examined:
    """A check of the instrument by the worst seed of some models.

    Attributes:
        check: One sentence.
        number: The number, with its unit.
        expected: Where it should be.
        worst: From a value a seed to the one that is told.
    """

    check: str
    number: Number
    expected: Region
    worst: Callable[[np.ndarray], float] = np.max

    def found(self, lines: Lines) -> Check:
        """Returns whether it passed."""
        value = float(self.worst(self.number.values(lines)))
        return Check.of(self.check, self.number.quantity, value, self.expected)


CHECKS = (
    Examined("A class-blind density on every logit leaves A3 and every prediction.",
             changed("|change of A3| + share of changed predictions", GAUSSIAN, FLOW),
             below(1e-3)),
    Examined("So does a pattern.",
             changed("the same of fool-shift", "fool-shift"), below(1e-3)),
    Examined("So do a quadratic and an oscillating one.",
             changed("the larger of the same of fool-quadratic and fool-sine",
                     "fool-quadratic", "fool-sine"), below(1e-3)),
    Examined("A linear shift makes of the logit-gradients whatever one likes.",
             of("change/logit_gradient", "fool-shift", "relative change of the logit-gradient"),
             above(1), np.min),
    Examined("A ripple of one logit changes a loss by its δ = 0.001 at most.",
             of("change/loss", "fool-ripple", "largest change of a loss (nats)"),
             below(1.001e-3)),
    Examined("The loss-gradients are then others.",
             of("change/loss_gradient", "fool-ripple", "relative change of the loss-gradient"),
             above(0.1), np.min),
    Examined("The linear term that the one-sided estimator drops is nearly all of its noise.",
             of("estimators/noise", BASELINE,
                "its deviation over that with the control variate, σ = 0.01"),
             above(50), np.min),
    Examined("The stability penalty shrinks gradients by the law 1 / (1 + 2 μ T), T being minus "
             "the mean trace without it.",
             LAW, within(0.05, of=1), lambda values: values[np.abs(values - 1).argmax()]),
    Examined("Without noise and penalty score matching collapses onto the training points.",
             DEPTH, above(1), np.min),
    Examined("Gradients of one point are not aligned with the scores of another.",
             of("A3/shuffled", BASELINE, "|A3| with the scores of other points, baseline"),
             below(0.1), lambda values: np.abs(values).max()),
)  # fmt: skip
"""The checks of the instrument besides that of the reference."""
