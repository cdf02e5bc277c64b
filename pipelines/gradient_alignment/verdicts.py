"""What the study concludes: its questions decided together, in findings and checks."""

import math
from collections.abc import Iterator, Mapping, Sequence

from pipelines.gradient_alignment.over_seeds import Lines
from pipelines.gradient_alignment.questions import CHECKS, FINDINGS, QUESTIONS, WOULD_CHANGE
from pipelines.reporting.claims import Check, Claim, Conclusion, decide
from pipelines.reporting.statistics import above


def conclude(lines: Lines, quality: Sequence[Mapping[str, float]]) -> Conclusion:
    """Returns what the measured models say.

    Arguments:
        lines: The models by name, the baseline and the class-blind ones among them.
        quality: The numbers of the reference and of the class-blind densities, seed by seed.
    """
    asked = [(question, number) for question, number in QUESTIONS if number.known(lines)]
    claims = decide([(question, number.found(lines)) for question, number in asked])
    sound = Check.of(
        "The reference flows are good class densities.",
        "their Bayes accuracy at noisy test points, of the worst seed",
        min((one.get("reference/accuracy", math.nan) for one in quality), default=None),
        above(0.9),
        "Not measured of a marginal density alone.",
    )
    checks = [
        Check.of(check, number.quantity, expected.worst(number.values(lines)), expected)
        for check, number, expected in CHECKS
        if number.known(lines)
    ]
    findings = tuple(_findings(lines, claims))
    return Conclusion(findings, tuple(claims), (sound, *checks), WOULD_CHANGE)


def _findings(lines: Lines, claims: Sequence[Claim]) -> Iterator[str]:
    """Gives three sentences with the measured numbers; fewer where models are missing."""
    known = {claim.quantity: claim for claim in claims if claim.value is not None}
    means = {name: f"{line.interval('A1').value:.3f}" for name, line in lines.items()}
    for text, *numbers in FINDINGS:
        if all(number.quantity in known for number in numbers):
            found = [known[number.quantity] for number in numbers]
            verdict = f"{found[-1].expected}: {found[-1].verdict}"
            yield text.format(*(one.estimate for one in found), verdict=verdict, **means)
