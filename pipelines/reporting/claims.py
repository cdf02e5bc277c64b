"""What a study says: claims, each judged by one number, in a table and on a page."""

__all__ = [
    "TEMPLATE",
    "Claim",
    "Figure",
    "Table",
    "Verdict",
    "conclude",
    "judge",
    "page",
    "table",
    "untested",
]

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import rich.table
from rich import box

from ebflow.estimate import Interval
from pipelines.config import Section
from pipelines.config.files import dump
from pipelines.reporting import pages
from pipelines.reporting.machine import machine
from pipelines.tracking import notes

TEMPLATE = "claims.html.j2"

MOST_DECIMALS = 6
"""Of numbers on a page; smaller ones are told by their power of ten."""

Verdict = Literal["holds", "does not hold", "not tested at this scale"]


@dataclass(frozen=True)
class Claim:
    """A claim, and whether it holds.

    Attributes:
        claim: One sentence.
        verdict: Whether it holds.
        quantity: What the number that decides is, with its unit.
        value: That number; None if it was not measured.
        low: The lower end of its 95 % interval; None without one.
        high: The upper end.
        figure: The name of the figure that shows it.
        note: What was expected, and how it was decided.
    """

    claim: str
    verdict: Verdict
    quantity: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    figure: str | None = None
    note: str = ""

    @property
    def told(self) -> str:
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
        return [f"{number:.1e}" for number in numbers]
    return [f"{round(number, decimals) + 0.0:,.{decimals}f}" for number in numbers]


def judge(
    claim: str,
    quantity: str,
    found: Interval,
    holds: Callable[[Interval], bool],
    *,
    figure: str | None = None,
    note: str = "",
) -> Claim:
    """Returns the claim, judged by an interval; arguments as the attributes of ``Claim``."""
    verdict: Verdict = "holds" if holds(found) else "does not hold"
    return Claim(claim, verdict, quantity, *found, figure, note)


def untested(claim: str, quantity: str, *, note: str = "") -> Claim:
    """Returns a claim whose number was not measured."""
    return Claim(claim, "not tested at this scale", quantity, note=note)


@dataclass(frozen=True)
class Figure:
    """A figure of a page: its file, and what it shows in one or two sentences."""

    file: Path
    caption: str


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        title: What stands above it.
        headings: Of its columns, with units.
        rows: Its cells as text; all columns but the first are numbers.
        note: What a reader has to know.
    """

    title: str
    headings: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    note: str = ""


def page(
    title: str,
    intro: str,
    claims: Sequence[Claim],
    figures: Mapping[str, Figure],
    tables: Sequence[Table],
    config: Section,
) -> str:
    """Returns a self-contained HTML page.

    Arguments:
        title: Its title.
        intro: What was studied, in a few sentences.
        claims: The claims in their order.
        figures: The figures by the names that claims have.
        tables: Further numbers.
        config: The configuration of the study.
    """
    return pages.render(
        TEMPLATE,
        {name: figure.file for name, figure in figures.items()},
        title=title,
        intro=intro,
        claims=claims,
        figures=figures,
        tables=tables,
        machine=machine(),
        config=dump(config),
    )


def table(claims: Sequence[Claim]) -> rich.table.Table:
    """Returns the claims as a table for the terminal."""
    made = rich.table.Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    made.add_column("claim", ratio=1)
    made.add_column("number [95 %]", justify="right")
    made.add_column("verdict")
    for claim in claims:
        told = "\n".join(filter(None, (claim.quantity, claim.told)))
        made.add_row(claim.claim, told.replace("[", r"\["), claim.verdict)
    return made


def conclude(summary: Mapping[str, Any]) -> str:
    """Returns the claims of a study's summary as a table in Markdown."""
    told = [Claim(**claim) for claim in summary["claims"]]
    lines = [(claim.claim, f"{claim.quantity} {claim.told}", claim.verdict) for claim in told]
    return notes.table(("claim", "number [95 %]", "verdict"), lines)
