"""What the study concludes: its questions decided together, in findings and checks."""

import math
from collections.abc import Mapping, Sequence

from ebflow.inference import above
from pipelines.gradient_alignment.comparisons import SHARE, Lines, Number
from pipelines.gradient_alignment.models import BASELINE, BLIND
from pipelines.gradient_alignment.questions import (
    CHECKS,
    GAUSSIAN_ALONE,
    OF_CENTRED,
    OVER_BASELINE,
    OVER_CONTROL,
    OVER_FLOW,
    QUESTIONS,
)
from pipelines.reporting.claims import Check, Claim, Conclusion, decide


def conclude(lines: Lines, quality: Sequence[Mapping[str, float]]) -> Conclusion:
    """Returns what the measured models say.

    Arguments:
        lines: The models by name, the baseline and the class-blind ones among them.
        quality: The numbers of the reference and of the class-blind densities, seed by seed.
    """
    hypotheses = [one for one in QUESTIONS if one.number.known(lines)]
    claims = decide([(one.question, one.number.found(lines)) for one in hypotheses])
    examined = [one.found(lines) for one in CHECKS if one.number.known(lines)]
    findings, checks = _findings(lines, claims), (_sound(quality), *examined)
    return Conclusion(findings, tuple(claims), checks, WOULD_CHANGE)


def _sound(quality: Sequence[Mapping[str, float]]) -> Check:
    """Judges the reference of every seed by its posterior."""
    return Check.of(
        "The reference flows are good class densities.",
        "their Bayes accuracy at noisy test points, of the worst seed",
        min((one.get("reference/accuracy", math.nan) for one in quality), default=None),
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
            f"changes no prediction, has an A1 of {_mean(lines, BLIND['gaussian'])}, beside "
            f"{_mean(lines, 'score')} of score matching and {_mean(lines, BASELINE)} of the "
            "classifier as it is: {} times its gain. Over a class-blind flow {} is left.",
            SHARE,
            OVER_FLOW,
        ),
        _sentence(
            known,
            "In A3, which no gauge reaches, score matching is {} above cross-entropy alone and {} "
            "above a gradient-norm penalty of equal strength ({verdict}).",
            OVER_BASELINE,
            OVER_CONTROL,
        ),
        _sentence(
            known,
            "On the centred logit, where it has no gauge to fit, score matching changes A3 by {}; "
            "a class-blind Gaussian alone changes pixel perturbation by raw gradients by {}.",
            OF_CENTRED,
            GAUSSIAN_ALONE,
        ),
    ]
    return tuple(filter(None, sentences))


def _sentence(known: Mapping[str, Claim], text: str, *numbers: Number) -> str:
    """Returns the text with the numbers of claims, ``verdict`` that of the last; or nothing."""
    if any(number.quantity not in known for number in numbers):
        return ""
    found = [known[number.quantity] for number in numbers]
    margin = f"{found[-1].verdict} at a margin of {found[-1].margin:g}"
    return text.format(*(claim.estimate for claim in found), verdict=margin)


def _mean(lines: Lines, name: str) -> str:
    return f"{lines[name].interval('A1').value:.3f}" if name in lines else ""


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
