"""The claims of the study, the numbers that decide them, and the conclusion.

A number compares measured models and has one value a seed. Bounds are fixed before a run. A1 is
compared with that of the baseline with a class-blind density on every logit. That trains nothing
and changes no prediction: the rest is about the classes.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ebflow.alignment.regularizers import smallest_trace
from pipelines.gradient_alignment import search
from pipelines.gradient_alignment.models import BASELINE, BLIND, CLIP, Model
from pipelines.gradient_alignment.settings import OTHER, without_effect
from pipelines.reporting import statistics
from pipelines.reporting.claims import Check, Claim, Conclusion, Question, decide
from pipelines.reporting.statistics import Confidence, Interval, above, below, student, within

FEWEST = 8  # The least number of sound trainings whose order is judged


@dataclass(frozen=True)
class Study:
    """The measured models.

    ``numbers`` have a metric in each column, and a row for each seed and model: NaN where the
    model diverged or lacks the metric. ``diagnoses`` are the first of a collapse or divergence,
    empty if there is none. ``overlap`` is test rows over training rows if seeds split the same
    rows, else 0.
    """

    models: Mapping[str, Model]  # with the first seed
    numbers: pd.DataFrame
    diagnoses: Mapping[str, str]  # by model
    arrays: Mapping[str, Mapping[str, np.ndarray]]  # of the first seed, for figures, by model
    width: int  # of the data
    overlap: float = 0.0

    @classmethod
    def of(
        cls,
        models: Mapping[str, Model],
        outcomes: Sequence[Mapping[str, Any]],
        arrays: Sequence[Mapping[str, np.ndarray]],
        *,
        width: int,
        overlap: float = 0.0,
    ) -> "Study":
        """Returns the study of models, and adds A1 over that of the class-blind models.

        ``outcomes`` have ``numbers`` and ``diagnosis`` of all models with the first seed, then
        with the next.
        """
        seeds = range(len(outcomes) // len(models))
        index = pd.MultiIndex.from_product([seeds, models], names=["seed", "model"])
        numbers = pd.DataFrame([one["numbers"] for one in outcomes], index, dtype=float)
        for shift, blind in BLIND.items():
            if blind in models and "A1" in numbers:
                a1 = numbers["A1"].xs(blind, level="model")
                numbers[f"A1/over {shift}"] = numbers["A1"].sub(a1, level="seed")
        diagnoses = dict.fromkeys(models, "")
        for name, one in zip(index.get_level_values("model"), outcomes, strict=True):
            diagnoses[name] = diagnoses[name] or one["diagnosis"]
        by_name = dict(zip(models, arrays, strict=True))
        numbers = numbers.dropna(axis=1, how="all")
        return cls(models, numbers, diagnoses, by_name, width, overlap)

    @property
    def seeds(self) -> int:
        """The number of seeds."""
        return len(self.numbers) // len(self.models)

    def values(self, metric: str, model: str) -> np.ndarray:
        """Returns a metric of a model seed by seed, NaN where it has none.

        Raises:
            KeyError: If the model was not measured.
        """
        return self.numbers.xs(model, level="model").reindex(columns=[metric])[metric].to_numpy()

    def interval(self, metric: str, model: str) -> Interval:
        """Returns the mean of a metric over seeds with Student's 95 % interval."""
        return self.mean(self.values(metric, model)).interval()

    def mean(self, values: np.ndarray) -> Confidence:
        """Returns the mean of values, one a seed."""
        return student(values, overlap=self.overlap)

    def metrics(self, model: str) -> list[str]:
        """Returns the names of a model's metrics."""
        return sorted(self.numbers.xs(model, level="model").dropna(axis=1, how="all"))

    @property
    def trainings(self) -> list[str]:
        """The names of sound models that were trained, not shifted, and no cells of a search.

        Raises:
            KeyError: If they are too few to judge their order.
        """
        sound = [
            name
            for name, model in self.models.items()
            if model.shift == "none" and model.cell is None and not self.diagnoses[name]
        ]
        if len(sound) < FEWEST:
            raise KeyError("sound trainings")
        return sound


@dataclass(frozen=True)
class Number:
    """A number that compares models: its description, and a function to one value a seed.

    The function raises KeyError if a model was not measured.
    """

    quantity: str
    compute: Callable[[Study], np.ndarray]

    def values(self, study: Study) -> np.ndarray | None:
        """Returns one value a seed; None if a model was not measured."""
        try:
            return self.compute(study)
        except KeyError:
            return None


def of(metric: str, model: str, quantity: str) -> Number:
    """Returns a metric of a model."""
    return Number(quantity, lambda study: study.values(metric, model))


def less(metric: str, model: str, other: str, quantity: str = "") -> Number:
    """Returns a metric of a model less that of another."""
    return Number(
        f"{quantity}, {model} less {other}" if quantity
        else f"{metric} of {model} less that of {other}",
        lambda study: study.values(metric, model) - study.values(metric, other),
    )  # fmt: skip


def ratio(model: str, other: str) -> Number:
    """Returns ‖g‖ of a model over that of another."""
    return Number(
        f"‖g‖ of {model} over that of {other}",
        lambda study: study.values("gradient", model) / study.values("gradient", other),
    )


def share(metric: str, part: str, whole: str, quantity: str) -> Number:
    """Returns the change of a metric from the baseline to one model over that to another."""

    def compute(study: Study) -> np.ndarray:
        start = study.values(metric, BASELINE)
        return (study.values(metric, part) - start) / (study.values(metric, whole) - start)

    return Number(quantity, compute)


def changed(quantity: str, *shifted: str) -> Number:
    """Returns the largest change of A3 and share of changed predictions of shifted baselines."""

    def compute(study: Study) -> np.ndarray:
        a3 = study.values("A3", BASELINE)
        changes = [np.abs(study.values("A3", name) - a3) + 1 - study.values("change/same", name)
                   for name in shifted]  # fmt: skip
        return np.max(changes, axis=0)

    return Number(quantity, compute)


def order(one: str, other: str) -> Number:
    """Returns the rank correlation of two metrics over all sound trainings.

    It is NaN for a seed in which a metric is missing, or the same for all trainings.
    """

    def compute(study: Study) -> np.ndarray:
        pair = [
            np.stack([study.values(metric, name) for name in study.trainings], 1)
            for metric in (one, other)
        ]
        ordered = np.all([np.ptp(values, axis=1) > 0 for values in pair], axis=0)
        return np.where(ordered, statistics.rank_correlation(*pair), np.nan)

    return Number("rank correlation over these models", compute)


# The least differences that matter, of cosines and of accuracies.
A1, A3, ACCURACY = 0.05, 0.05, 0.02

GAUSSIAN, FLOW = BLIND["gaussian"], BLIND["flow"]
OWN = "Each model is its own judge."
CIFAR = "Published for CIFAR-100."
CLIPPED = f"Score matching's steps are clipped at a norm of {CLIP:g}, the baseline's are not."
COSTLY = "A1 and A3 need a flow of each class, which is expensive for 3,072 values."
OUTLIERS = "Published is the mean ratio, which outliers dominate: a table has its logarithm too."

SHARE = share("A1", GAUSSIAN, "score", "share of the gain in A1 over the baseline")
EXPLAINED = share("gradient", "paper-control", "paper-score",
                  "fall of ‖g‖ from the baseline's, paper-control over paper-score")  # fmt: skip
OVER_FLOW = less("A1", "score", FLOW)
OVER_BASELINE = less("A3", "score", BASELINE)
OVER_CONTROL = less("A3", "score", "score-control")
OF_CENTRED = less("A3", "centred", BASELINE)
GAUSSIAN_ALONE = less("PP/own/raw", GAUSSIAN, BASELINE, "accuracy by raw gradients")


def _shrinkage(study: Study) -> np.ndarray:
    """Returns ‖g‖ with the stability penalty over that without, over 1 / (1 + 2 μ T)."""
    mu = study.models["score"].classifier.regularizer.stability
    shorter = study.values("gradient", "score") / study.values("gradient", "score-free")
    return shorter / (1 / (1 - 2 * mu * study.values("trace", "score-free")))


def _free_structure(study: Study) -> np.ndarray:
    """Returns the difference in A1 that a class-blind Gaussian makes; −1 if it is no free one."""
    gain = study.values("A1", GAUSSIAN) - study.values("A1", BASELINE)
    return np.where(study.values("change/same", GAUSSIAN) > 0.999, gain, -1.0)


def _depth(study: Study) -> np.ndarray:
    """Returns the trace at training rows over the floor of data smoothed by the noise."""
    floor = smallest_trace(study.width, study.models["collapse"].classifier.smoothing)
    return study.values("trace/training", "collapse") / floor


# Claim, number and the rest of each question, asked if the number's models were measured.
QUESTIONS = (
    ("Nearly all that score matching gains in A1, a class-blind Gaussian gives to the "
     "baseline, whose predictions stay.",
     SHARE, above(0.9), "gauge",
     "The Gaussian has the mean and covariance of all training rows, and is trained on "
     f"nothing. {CLIPPED}"),
    ("Score matching aligns logit-gradients with the class's score better than that.",
     less("A1", "score", GAUSSIAN), above(A1), "gauge"),
    ("And better than a class-blind flow added to the baseline.",
     OVER_FLOW, above(A1), "gauge"),
    ("In what no gauge reaches, score matching aligns more than cross-entropy alone.",
     OVER_BASELINE, above(A3), "gauge", CLIPPED),
    ("There it aligns more than the gradient-norm penalty of equal strength.",
     OVER_CONTROL, above(A3), "gauge",
     "The control penalizes gradients as strongly, without the trace."),
    ("There it comes nearer to the scores than that penalty does.",
     less("relF-opt/centred", "score", "score-control", "relF-opt of centred gradients"),
     below(-0.05), "gauge",
     "Squared distance after the best scale, over the scores' mean square."),
    ("Score matching on the centred logit, which has no gauge, raises A3.",
     OF_CENTRED, above(A3), "gauge", CLIPPED),
    ("What it aligns instead is the centred gradient with the class's whole score.",
     less("A1/centred", "centred", BASELINE, "cosine of the two"), above(0.2), "gauge", CLIPPED),
    ("Score matching costs no accuracy that matters.",
     less("accuracy", "score", BASELINE), above(-ACCURACY), "trade-off", CLIPPED),
    ("One-sided score matching with the λ of the published code is a gradient-norm "
     "penalty at 81 times it: gradients are as long.",
     ratio("code-control", "code-score"), within(0.1, of=1), "trade-off"),
    ("And no better aligned.",
     less("A3", "code-score", "code-control"), within(0.02), "trade-off"),
    ("With the λ of the paper that penalty explains the fall of ‖g‖.",
     EXPLAINED, within(0.1, of=1), "trade-off"),
    ("And A3.",
     less("A3", "paper-score", "paper-control"), within(0.02), "trade-off"),
    ("Anti-score-matching in the paper's setting shrinks gradients, against its purpose.",
     ratio("paper-anti", BASELINE), below(0.9), "trade-off",
     "Its σ is its code's, 0.001; the paper gives none."),
    ("Pictures of activity maximization are denser after score matching than with a "
     "class-blind Gaussian.",
     less("samples/log density", "score", GAUSSIAN, "log p / D under the reference"),
     above(0.1), "samples", "", "nats a dimension"),
    ("Gradients of score matching are better at pixel perturbation, as in the paper.",
     less("PP/own/raw", "score", BASELINE, "accuracy by raw gradients"), above(ACCURACY),
     "follows", f"{CIFAR} {CLIPPED}"),
    ("A class-blind Gaussian alone makes them worse: the test is not invariant under the gauge.",
     GAUSSIAN_ALONE, below(-ACCURACY), "follows"),
    ("A plain classifier takes noisy images for the denser ones, by the mean of the log ratio.",
     of("mean log ratio/0.3", BASELINE, "mean log density ratio of baseline, noise 0.3"),
     above(0.5), None, f"{CIFAR} {OUTLIERS}", "nats"),
    ("Among the models of this study pixel perturbation by centred gradients follows A3.",
     order("A3", "PP/own/centred"), above(0.5), "follows", OWN),
    ("Among them pixel perturbation by raw gradients follows A1, the hypothesis of the paper.",
     order("A1", "PP/own/raw"), above(0.5), "follows", OWN),
    ("Among them the DSM cosine, which needs no reference, has the order of A1.",
     order("A1", "DSM-cos"), above(0.8), "follows"),
    ("Among them test accuracy does not follow A1: the structure of gradients is unrelated to "
     "generalization, as in the paper.",
     order("A1", "accuracy"), within(0.5), "trade-off",
     "Weaker than 0.5 either way, the bound of the claims that one metric follows another."),
    ("Nor does it follow A3.",
     order("A3", "accuracy"), within(0.5), "trade-off"),
    ("A pattern can be trained into the weights: logit-gradients show it.",
     of("pattern/logit", "fool-weights", "cosine of fool-weights' gradient with the pattern"),
     above(0.9), "fooled"),
    ("That costs no accuracy that matters.",
     less("accuracy", "fool-weights", BASELINE), above(-ACCURACY), "fooled"),
    ("On colour images score matching aligns a residual network's logit-gradients with the data "
     "more than cross-entropy alone.",
     less("DSM-cos", "colour-score", BASELINE), above(A1), "gradients",
     f"The cosine with the noise taken back has the order of A1. {COSTLY}"),
    ("There it aligns them more than the gradient-norm penalty of equal strength.",
     less("DSM-cos", "colour-score", "colour-control"), above(A1), "gradients"),
    ("There a class-blind Gaussian on the baseline's logits aligns them less than that.",
     less("DSM-cos", "colour-score", GAUSSIAN), above(A1), "gradients",
     "The Gaussian is trained on nothing and changes no prediction."),
    ("There score matching costs no accuracy that matters.",
     less("accuracy", "colour-score", BASELINE), above(-ACCURACY), "trade-off", CLIPPED),
    ("There another network recognizes more of its pictures of activity maximization.",
     less("GAN-test", "colour-score", BASELINE), above(ACCURACY), "samples",
     f"{CIFAR} 72.75 % of pictures after score matching, 59.47 % of the baseline's."),
    ("There its gradients are better at pixel perturbation, as in the paper.",
     less("PP/own/raw", "colour-score", BASELINE, "accuracy by raw gradients"), above(ACCURACY),
     "perturbation", CIFAR),
    ("A search of λ, μ, σ and noise finds score matching of a higher A3 than the paper's setting.",
     Number("alignment of the setting that validation rows choose less that of paper-score, on "
            "test rows", search.over_paper), above(A3), "search",
     f"Each seed chooses among settings that cost at most {search.ACCURACY:g} of validation "
     "accuracy."),
    ("It costs no accuracy that matters.",
     Number("accuracy of that setting less that of paper-score, on test rows",
            search.accuracy_over_paper), above(-ACCURACY), "search"),
    ("Your regularizer aligns more than cross-entropy alone, in what no gauge reaches.",
     less("A3", "custom", BASELINE), above(A3), "gauge"),
    ("There it aligns more than the gradient-norm penalty of its strength.",
     less("A3", "custom", "custom-control"), above(A3), "gauge"),
    ("Your regularizer costs no accuracy that matters.",
     less("accuracy", "custom", BASELINE), above(-ACCURACY), "trade-off"),
)  # fmt: skip

# Checks of the instrument: sentence, number, and the region of its worst seed.
CHECKS = (
    ("A class-blind density on every logit leaves A3 and every prediction.",
     changed("|change of A3| + share of changed predictions", GAUSSIAN, FLOW), below(1e-3)),
    ("Two classifiers with the same predictions differ in A1 as much as one likes.",
     Number("A1 of blind-gaussian less that of baseline, if no prediction changes",
            _free_structure), above(0.2)),
    ("So does a pattern.",
     changed("the same of fool-shift", "fool-shift"), below(1e-3)),
    ("So do a paraboloid and a wave that are added to every logit.",
     changed("the same of fool-quadratic and fool-sine", "fool-quadratic", "fool-sine"),
     below(1e-3)),
    ("A pattern on every logit changes no posterior probability beyond rounding.",
     of("change/posterior", "fool-shift", "largest change of a posterior, fool-shift"),
     below(1e-3)),
    ("And logit-gradients show the pattern.",
     of("pattern/logit", "fool-shift", "mean cosine of fool-shift's gradient with the pattern"),
     above(0.95)),
    ("A pattern on every logit leaves the gradients of the loss.",
     of("change/loss_gradient", "fool-shift", "relative change of the loss-gradient, fool-shift"),
     below(1e-2)),
    ("Waves of a height of 0.001 nats change a loss by less than twice that.",
     of("change/loss", "fool-ripple", "largest change of a loss, fool-ripple (nats)"),
     below(2.1e-3)),
    ("But they change the gradients of the loss.",
     of("change/loss_gradient", "fool-ripple", "relative change of the loss-gradient"),
     above(1)),
    ("Which show the pattern then.",
     of("pattern/loss", "fool-ripple", "mean |cosine| of fool-ripple's loss-gradient with the "
        "pattern"), above(0.8)),
    ("A linear shift makes of the logit-gradients whatever one likes.",
     of("change/logit_gradient", "fool-shift", "relative change of the logit-gradient"), above(1)),
    ("The stability penalty shrinks gradients by the factor 1 / (1 + 2 μ T), T being minus "
     "the mean trace without it.",
     Number("measured ratio of ‖g‖ over this factor", _shrinkage), within(0.05, of=1)),
    ("Without noise and penalty score matching collapses onto the training points.",
     Number("mean trace of a training batch over the floor −D/s²", _depth), above(1)),
    ("Every setting of the paper is an option that changes a training.",
     Number(f"options, of {len(OTHER)}, without an effect",
            lambda study: np.array([float(len(without_effect()))])), below(1)),
    ("Gradients of one point are not aligned with the scores of another.",
     Number("|A3| with the scores of other points, baseline",
            lambda study: np.abs(study.values("A3/shuffled", BASELINE))), below(0.1)),
)  # fmt: skip

# Sentences and the numbers in them; ``verdict`` is on the last number, names are A1.
FINDINGS = (
    ("A class-blind Gaussian on the logits of a plain classifier, which trains nothing and "
     "changes no prediction, has an A1 of {blind-gaussian}, beside {score} of score matching and "
     "{baseline} of the classifier as it is: {} times its gain. Over a class-blind flow {} is "
     "left.", SHARE, OVER_FLOW),
    ("In A3, which no gauge reaches, score matching is {} above cross-entropy alone and {} above "
     "a gradient-norm penalty of equal strength ({verdict}).", OVER_BASELINE, OVER_CONTROL),
    ("On the centred logit, where it has no gauge to fit, score matching changes A3 by {}; a "
     "class-blind Gaussian alone changes pixel perturbation by raw gradients by {}.",
     OF_CENTRED, GAUSSIAN_ALONE),
)  # fmt: skip

WOULD_CHANGE = (
    "Data on which a class-blind density is a bad one of every class: there the gauge gives less, "
    "and A1 has more to say.",
    "A reference nearer to the truth than these flows, whose Bayes accuracy and log-density are "
    "in a table: A3 is the cosine with a difference of their scores.",
    "Other strengths λ of score matching and of its control, which are compared at one, the "
    "recommended.",
    "A regularizer that knows the other classes' scores at a point, and so could fit the "
    "centred score itself.",
)


def conclude(study: Study, quality: Sequence[Mapping[str, float]]) -> Conclusion:
    """Returns findings, claims and checks; ``quality`` has each seed's reference flows."""
    values = [
        (Question(claim, number.quantity, *more), number.values(study))
        for claim, number, *more in QUESTIONS
    ]
    claims = decide([(question, study.mean(one)) for question, one in values if one is not None])
    checks = [_sound(quality)] if quality else []
    checks += [
        Check.of(check, number.quantity, expected.worst(one), expected)
        for check, number, expected in CHECKS
        if (one := number.values(study)) is not None
    ]
    return Conclusion(tuple(_findings(study, claims)), tuple(claims), tuple(checks), WOULD_CHANGE)


def _sound(quality: Sequence[Mapping[str, float]]) -> Check:
    """Returns the check of the reference flows."""
    return Check.of(
        "The reference flows are good class densities.",
        "their Bayes accuracy at noisy test points, of the worst seed",
        min(one.get("reference/accuracy", math.nan) for one in quality),
        above(0.9),
        "Not measured of a marginal density alone.",
    )


def _findings(study: Study, claims: Sequence[Claim]) -> Iterator[str]:
    """Yields the sentences whose numbers were measured."""
    measured = {claim.quantity: claim for claim in claims if claim.value is not None}
    means = {name: f"{study.interval('A1', name).value:.3f}" for name in study.models}
    for text, *numbers in FINDINGS:
        if all(number.quantity in measured for number in numbers):
            decided = [measured[number.quantity] for number in numbers]
            verdict = f"{decided[-1].expected}: {decided[-1].verdict}"
            yield text.format(*(one.estimate for one in decided), verdict=verdict, **means)
