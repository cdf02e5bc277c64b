"""What a study concludes: claims, each judged by one number, in a table and on a page.

A question says before the run what number it asks for, and where that would have to be. ``decide``
judges all questions of a study together: the verdict is that of the interval after Holm's
correction for their number. What only a fault of the program could break, an identity or a closed
form, is a check of the instrument and no claim.
"""

import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter
from rich.console import Console

from pipelines.reporting.statistics import Confidence, Region, holm
from pipelines.reporting.terminal import table
from pipelines.tracking import notes

if TYPE_CHECKING:
    from pipelines.engine import Artefact

NUMBERS = "numbers.json"
"""What the last stage of a study leaves of numbers and conclusion."""

MOST_DECIMALS = 6
"""Of numbers on a page; smaller ones are told by their power of ten."""

LEVEL = 0.05
"""At most this share of studies has a wrong verdict, however many they judge."""

Verdict = Literal["holds", "does not hold", "not decided at this size"]


@dataclass(frozen=True)
class Question:
    """A claim before its number is measured.

    Attributes:
        claim: One sentence.
        quantity: What the number that decides is.
        expected: Where it is if the claim holds.
        units: Of the number; empty of a pure one.
        figure: The name of the figure that shows it.
        note: How it is measured, and why the bounds are these.
    """

    claim: str
    quantity: str
    expected: Region
    units: str = ""
    figure: str | None = None
    note: str = ""


Measured = tuple[Question, Confidence | None]
"""A question with its number, if that was measured."""


@dataclass(frozen=True)
class Claim:
    """A claim, and whether it holds.

    Attributes:
        claim: One sentence.
        verdict: Whether it holds.
        quantity: What the number that decides is.
        value: That number; None if it was not measured.
        low: The lower end of its 95 % interval; None without one.
        high: The upper end.
        figure: The name of the figure that shows it.
        note: How it was measured, and why the bounds are these.
        units: Of the number.
        expected: Where it is if the claim holds.
        margin: How far inside of the bounds the power is told.
        p: Of the verdict, after Holm's correction; None if nothing was tested.
        power: The chance of the verdict "holds" a margin inside of the bounds; None likewise.
    """

    claim: str
    verdict: Verdict
    quantity: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    figure: str | None = None
    note: str = ""
    units: str = ""
    expected: str = ""
    margin: float | None = None
    p: float | None = None
    power: float | None = None

    @property
    def estimate(self) -> str:
        """The number and its interval as text."""
        if self.value is None:
            return ""
        if self.low is None or self.low == self.high:
            return f"{self.value:.3g}"
        value, low, high = _rounded(self.high - self.low, self.value, self.low, self.high)
        return f"{value} [{low}, {high}]"


def _rounded(width: float, *numbers: float) -> list[str]:
    """Returns numbers as text, to the second digit of the width of their interval."""
    decimals = max(0, 1 - math.floor(math.log10(width)))
    if decimals > MOST_DECIMALS:
        tiny = max(map(abs, numbers)) < 10.0**-MOST_DECIMALS
        return [f"{number:.1e}" if tiny else f"{number:.{MOST_DECIMALS}f}" for number in numbers]
    return [f"{round(number, decimals) + 0.0:,.{decimals}f}" for number in numbers]


def decide(measured: Sequence[Measured]) -> list[Claim]:
    """Returns the claims, judged together; of a number that was not measured nothing is decided.

    A verdict is "holds" where the number is inside of its region, "does not hold" where it is
    outside, and of both p-values the lesser is at most ``LEVEL`` after Holm's correction.
    """
    known = [(question, question.expected, found or UNKNOWN) for question, found in measured]
    p = [(region.inside(found), region.outside(found)) for _, region, found in known]
    adjusted = holm([min(pair) for pair in p])
    level = LEVEL / max(1, sum(map(math.isfinite, adjusted)))
    claims = []
    for (question, region, found), pair, one in zip(known, p, adjusted, strict=True):
        decided: Verdict = "holds" if pair[0] < pair[1] else "does not hold"
        numbers = (*found.interval(), region.margin, one, region.power(found, level))
        names = ("value", "low", "high", "margin", "p", "power")
        fields = dict(zip(names, map(_finite, numbers), strict=True))
        fields |= {**vars(question), "expected": str(region)}
        fields["verdict"] = decided if one <= LEVEL else "not decided at this size"
        claims.append(Claim(**fields))
    return claims


UNKNOWN = Confidence(math.nan, math.nan, 0)
"""A number that was not measured."""


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class Check:
    """A check of the instrument: what only a fault of the program could break.

    Attributes:
        check: One sentence.
        quantity: What the number is, with its unit.
        value: That number; None if it was not measured.
        expected: Where it should be.
        passed: Whether it is there; None if it was not measured, or too coarsely to be judged.
        note: How it was measured.
    """

    check: str
    quantity: str
    value: float | None
    expected: str
    passed: bool | None
    note: str = ""

    @classmethod
    def of(
        cls, check: str, quantity: str, value: float | None, expected: Region, note: str = ""
    ) -> "Check":
        """Judges a number, None or NaN if it was not measured, by where it should be."""
        known = value is not None and math.isfinite(value)
        passed = expected.low <= value <= expected.high if known else None
        return cls(check, quantity, value if known else None, str(expected), passed, note)

    @property
    def verdict(self) -> str:
        """Whether it passed, in words."""
        if self.passed is None:
            return "not measured" if self.value is None else "not judged at this size"
        return "passed" if self.passed else "failed"


@dataclass(frozen=True)
class Conclusion:
    """What a study concludes.

    Attributes:
        findings: Three sentences, the most important one first.
        claims: The claims in their order.
        checks: The checks of the instrument.
        would_change: What would change the findings, in sentences.
    """

    findings: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    checks: tuple[Check, ...] = ()
    would_change: tuple[str, ...] = ()

    @classmethod
    def read(cls, summary: Mapping[str, Any]) -> "Conclusion":
        """Returns the conclusion of a study's summary."""
        return TypeAdapter(cls).validate_python(summary)


def publish(value: "Artefact", folder: Path) -> dict[str, Any]:
    """Copies all that a last stage made into a run's folder but its numbers, and returns these."""
    others = shutil.ignore_patterns(NUMBERS)
    shutil.copytree(value.path, folder, ignore=others, dirs_exist_ok=True)
    return json.loads((value.path / NUMBERS).read_text())


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the findings of a study's summary, the claims, and the checks that did not pass."""
    conclusion = Conclusion.read(summary)
    for finding in conclusion.findings:
        console.print(finding)
    lines = ((one.claim, f"{one.quantity}\n{one.estimate}".strip(), one.verdict)
             for one in conclusion.claims)  # fmt: skip
    console.print(table(("claim", "number [95 %]", "verdict"), lines, wrap=True))
    counts = Counter(check.verdict for check in conclusion.checks)
    told = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    console.print(f"checks of the instrument: {told or 'none'}")
    for check in conclusion.checks:
        if not check.passed:
            value = "" if check.value is None else f"{check.value:.3g}, "
            console.print(f"  {check.verdict}: {check.check} ({value}expected {check.expected})")


def conclude(summary: Mapping[str, Any]) -> str:
    """Returns the findings and claims of a study's summary in Markdown."""
    found = Conclusion.read(summary)
    lines = [
        (claim.claim, f"{claim.quantity} {claim.estimate}", claim.expected, claim.verdict)
        for claim in found.claims
    ]
    claims = notes.table(("claim", "number [95 %]", "expected", "verdict"), lines)
    return "\n\n".join([" ".join(found.findings), claims, " ".join(found.would_change)]).strip()
