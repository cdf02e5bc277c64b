"""What a search wants of its trials."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A number of a trial that is to be small, or large.

    Attributes:
        name: Its name in records and reports.
        text: What it is, for headings.
        unit: Its unit; empty of a share.
        worst: What a trial counts that a rule has ended.
        largest: Whether it is to be large.
        digits: Decimals that are shown.
        margin: By how much a winner's mean may be worse than the base's; None: by any amount.
        held: Whether it is measured again on rows that the search never saw.
    """

    name: str
    text: str
    unit: str
    worst: float
    largest: bool = False
    digits: int = 1
    margin: float | None = None
    held: bool = True

    @property
    def mode(self) -> str:
        """``max`` or ``min``."""
        return "max" if self.largest else "min"

    @property
    def axis(self) -> str:
        """What it is, with its unit."""
        return f"{self.text} ({self.unit})" if self.unit else self.text

    def cost(self, value: float) -> float:
        """Returns what is the smaller, the better."""
        return -value if self.largest else value

    def of(self, values: Mapping[str, float]) -> float:
        """Returns the cost of a trial by its numbers."""
        return self.cost(values[self.name])

    def formatted(self, value: float | None) -> str:
        """Returns the number as text; nothing if there is none."""
        return "" if value is None else f"{value:.{self.digits}f}"
