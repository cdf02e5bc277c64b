"""Claims of a study, each judged by one number.

A question fixes before the run which number decides a claim, and the range that is expected.
``decide`` judges all questions of a study together: a verdict is that of the interval after Holm's
correction for their number. An identity or closed form that only an error in the program could
break is a check of the instrument, and no claim.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipelines.reporting.statistics import Confidence, Region, holm

MOST_DECIMALS = 6  # Decimals of numbers on a page; smaller numbers have a power of ten
LEVEL = 0.05  # The largest share of studies with a wrong verdict, however many claims they judge

Verdict = Literal["holds", "does not hold", "not decided at this size"]


@dataclass(frozen=True)
class Question:
    """A claim before its number is measured."""

    claim: str  #: One sentence
    quantity: str  #: The number that decides
    expected: Region  #: Its range if the claim holds
    figure: str | None = None  #: The name of the figure that shows it
    note: str = ""  #: The method, and the reason for the bounds
    units: str = ""  #: Its units; empty for a pure number
    item: str = ""  #: The item of the papers that it judges, as E4; empty for none


UNKNOWN = Confidence(math.nan, math.nan, 0)  # A number that was not measured

Measured = tuple[Question, Confidence | None]  # A question with its number, if that was measured


@dataclass(frozen=True)
class Claim:
    """A claim with its verdict; other attributes are those of its question."""

    claim: str
    verdict: Verdict
    quantity: str
    value: float | None = None  #: The number that decides; None if it was not measured
    low: float | None = None  #: The lower end of its 95 % interval; None without one
    high: float | None = None  #: The upper end
    figure: str | None = None
    note: str = ""
    units: str = ""
    expected: str = ""
    item: str = ""
    #: The p-value of the verdict after Holm's correction; None if nothing was tested
    p: float | None = None

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
    """Returns the claims, judged together; a number that was not measured decides nothing.

    A verdict is "holds" (the number is inside of its region) or "does not hold" (outside). Both
    need a p-value, the smaller of two, of at most ``LEVEL`` after Holm's correction.
    """
    judged = [(question, number or UNKNOWN) for question, number in measured]
    sides = [(one.expected.inside(n), one.expected.outside(n)) for one, n in judged]
    claims = []
    for pair, (inside, outside), p in zip(judged, sides, holm(map(min, sides)), strict=True):
        decided: Verdict = "holds" if inside < outside else "does not hold"
        claims.append(_claim(*pair, p, decided if p <= LEVEL else "not decided at this size"))
    return claims


def _claim(question: Question, number: Confidence, p: float, verdict: Verdict) -> Claim:
    numbers = (*number.interval(), p)
    value, low, high, p = (n if math.isfinite(n) else None for n in numbers)
    fields = {**vars(question), "expected": str(question.expected)}
    return Claim(verdict=verdict, value=value, low=low, high=high, p=p, **fields)


@dataclass(frozen=True)
class Check:
    """A check of the instrument, which only an error in the program could break."""

    check: str  #: One sentence
    quantity: str  #: The number, with its unit
    value: float | None  #: Its value; None if it was not measured
    expected: str  #: Its expected range
    #: True if it is in the range; None if it was not measured, or too coarsely
    passed: bool | None
    note: str = ""  #: The method
    item: str = ""  #: The item of the papers that it belongs to, as E1; empty for none

    @classmethod
    def of(
        cls,
        check: str,
        quantity: str,
        value: float | None,
        expected: Region,
        note: str = "",
        item: str = "",
    ) -> "Check":
        """Returns the check of a number, which is None or NaN if it was not measured."""
        measured = value is not None and math.isfinite(value)
        passed = expected.low <= value <= expected.high if measured else None
        number = value if measured else None
        return cls(check, quantity, number, str(expected), passed, note, item)

    @property
    def verdict(self) -> str:
        """The result in words."""
        if self.passed is None:
            return "not measured" if self.value is None else "not judged at this size"
        return "passed" if self.passed else "failed"


@dataclass(frozen=True)
class Conclusion:
    """The conclusion of a study."""

    findings: tuple[str, ...] = ()  #: Sentences, the most important one first
    claims: tuple[Claim, ...] = ()  #: The claims in their order
    checks: tuple[Check, ...] = ()  #: The checks of the instrument
    would_change: tuple[str, ...] = ()  #: Sentences on evidence that would change the findings

    def summary(self) -> dict[str, Any]:
        """Returns the conclusion for ``summary.json``, each claim and check with its text."""
        return asdict(self) | {
            "claims": [asdict(claim) | {"estimate": claim.estimate} for claim in self.claims],
            "checks": [asdict(check) | {"verdict": check.verdict} for check in self.checks],
        }
