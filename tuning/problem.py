"""What differs between searches: what is trained, for which goals, and how winners are judged."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pipelines.config import Section
from pipelines.engine import Artefact, Source, Stage
from pipelines.engine.demand import Needs, own
from tuning import suggest
from tuning.config import TuneConfig
from tuning.records import Record
from tuning.suggest import Space, Suggest


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
    """

    name: str
    text: str
    unit: str
    worst: float
    largest: bool = False
    digits: int = 2
    margin: float | None = None

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
        """Returns the cost of a trial by its numbers; of one without, the greatest."""
        return self.cost(values[self.name]) if self.name in values else math.inf

    def formatted(self, value: float | None) -> str:
        """Returns the number as text; nothing if there is none."""
        return "" if value is None else f"{value:.{self.digits}f}"


class Killed(Exception):
    """Ends a trial by a rule; the message is its line."""


class Problem(ABC):
    """A search around a pipeline, whose configuration is a whole of which trials train a part.

    Arguments:
        config: The search, and the whole.

    Attributes:
        pipeline: The name of the pipeline.
        before: The stages whose artefacts trials read.
        after: Those of a training behind the search, besides these.
        smaller: What makes a trial too large for a machine smaller.
        about: What the goals are, for the page.
        method: Returns how a trial is trained, in one line.
        label: Returns the same in a few words.
        goals: The first names the winner, and stops trials that fall behind.
        seeds: How many there are of each training behind the search.
        space: What is searched, by subject.
    """

    pipeline: ClassVar[str]
    before: ClassVar[tuple[Stage, ...]]
    after: ClassVar[tuple[Stage, ...]]
    smaller: ClassVar[str]
    about: ClassVar[str]
    method: Callable[[Any], str]
    label: Callable[[Any], str]
    goals: tuple[Goal, ...]
    seeds: int
    space: Space

    def __init__(self, config: TuneConfig) -> None:
        self.config, self.search, self.whole = config, config.search, config.base

    @cached_property
    @abstractmethod
    def base(self) -> Section:
        """What trials start from."""

    @abstractmethod
    def check(self) -> tuple[Source, Section]:
        """Returns the data's source, and the whole with rows for selection; raises BadInput."""

    @abstractmethod
    def train(self, trial: Section, inputs: Sequence[Path], folder: Path) -> None:
        """Trains; goes on from what a killed search left in the trial's folder.

        Reports ``step``, ``seconds`` (of training), ``share`` (of the training that is done) and
        the goals to Ray Tune.

        Raises:
            Killed: Where a rule ends it.
            NonFinite: If a loss or a likelihood was not finite.
        """

    @abstractmethod
    def inputs(self, source: Source) -> tuple[Artefact, ...]:
        """Returns what trials read, as expressions of redun: prepared data first."""

    @abstractmethod
    def measured(
        self, trial: Section, title: str, given: Sequence[Artefact]
    ) -> tuple[Artefact, ...]:
        """Returns a training behind the search and its measurement, as expressions of redun."""

    @abstractmethod
    def scores(self, folders: Sequence[Path]) -> Mapping[str, Mapping[str, float]]:
        """Returns the goals by split, ``select`` and ``test``, from what these leave."""

    @abstractmethod
    def settled(self, trial: Section) -> Section:
        """Returns the whole with the settings of a trial."""

    @property
    def needs(self) -> Needs:
        """What Ray reserves for a trial's process."""
        return own(self.base)

    def propose(self, ask: Suggest) -> Section:
        """Returns the configuration of a trial."""
        return suggest.propose(ask, self.space, self.search.over, self.base)

    def of(self, record: Record) -> Any:  # noqa: ANN401
        """Returns the configuration of a trial."""
        return type(self.base).model_validate(record.config)
