"""What a run of a graph gave, and what became of its stages."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.engine.values import Artefact


@dataclass(frozen=True)
class Status:
    """How many jobs of a stage ran, and how many were found in the store."""

    ran: int = 0
    cached: int = 0

    def __str__(self) -> str:
        if self.ran + self.cached == 1:
            return "ran" if self.ran else "cached"
        return f"{self.ran} ran, {self.cached} cached"


@dataclass(frozen=True)
class Outcome:
    """What a run of a graph gave.

    Arguments:
        value: Its value, all artefacts in place.
        statuses: What became of its stages, by their names.
    """

    value: Any
    statuses: dict[str, Status]

    @property
    def artefacts(self) -> list[Artefact]:
        """All artefacts of the value, once each."""
        return list({(a.stage, a.key): a for a in _artefacts(self.value)}.values())


def _artefacts(value: Any) -> Iterator[Artefact]:  # noqa: ANN401
    if isinstance(value, Artefact):
        yield value
    elif isinstance(value, Mapping):
        yield from _artefacts(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _artefacts(item)
