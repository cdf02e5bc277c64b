"""What differs between searches: what is trained, for which goals, and how winners are judged."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pipelines.config import Section
from pipelines.engine import Artefact, Source, Stage
from pipelines.engine.demand import Needs
from tuning.config import SearchConfig
from tuning.goals import Goal
from tuning.records import BASE, Record
from tuning.suggest import Suggest

Search = TypeVar("Search", bound=SearchConfig)
Whole = TypeVar("Whole", bound=Section)
Trial = TypeVar("Trial", bound=Section)


class Killed(Exception):
    """Ends a trial by a rule; the message is its line."""


class Problem(ABC, Generic[Search, Whole, Trial]):
    """A search around a pipeline, whose configuration is a whole of which trials train a part.

    Arguments:
        search: The search's configuration.

    Attributes:
        pipeline: The name of the pipeline.
        searches: Type of the search's configuration.
        trains: Type of a trial's.
        before: The stages whose artefacts trials read.
        after: Those of a training behind the search, besides these.
        smaller: What makes a trial too large for a machine smaller.
        about: What the goals are, for the page.
    """

    pipeline: ClassVar[str]
    searches: ClassVar[type[SearchConfig]]
    trains: ClassVar[type[Section]]
    before: ClassVar[tuple[Stage, ...]]
    after: ClassVar[tuple[Stage, ...]]
    smaller: ClassVar[str]
    about: ClassVar[str]

    def __init__(self, search: Search) -> None:
        self.search = search

    @abstractmethod
    def check(self, whole: Whole) -> tuple[Source, Whole]:
        """Returns the data's source, and the whole with rows for selection; raises BadInput."""

    @abstractmethod
    def base(self, whole: Whole) -> Trial:
        """Returns what trials start from."""

    @abstractmethod
    def goals(self, base: Trial) -> tuple[Goal, ...]:
        """Returns the goals; the first names the winner, and stops trials that fall behind."""

    @abstractmethod
    def propose(self, ask: Suggest, base: Trial) -> Trial:
        """Returns the configuration of a trial."""

    @abstractmethod
    def train(self, trial: Trial, inputs: Sequence[Path], folder: Path) -> None:
        """Trains; goes on from what a killed search left in the trial's folder.

        Reports ``step``, ``seconds`` (of training), ``share`` (of the training that is done) and
        the goals to Ray Tune.

        Raises:
            Killed: Where a rule ends it.
            NonFinite: If a loss or a likelihood was not finite.
        """

    @abstractmethod
    def inputs(self, whole: Whole, source: Source) -> tuple[Artefact, ...]:
        """Returns what trials read, as expressions of redun: prepared data first."""

    @abstractmethod
    def measured(
        self, whole: Whole, trial: Trial, title: str, given: Sequence[Artefact]
    ) -> tuple[Artefact, ...]:
        """Returns a training behind the search and its measurement, as expressions of redun."""

    @abstractmethod
    def scores(self, folders: Sequence[Path]) -> Mapping[str, Mapping[str, float]]:
        """Returns the goals by split, ``select`` and ``test``, from what these leave."""

    @abstractmethod
    def best(self, whole: Whole, winner: Trial) -> Whole:
        """Returns the whole with the winner's settings."""

    @abstractmethod
    def method(self, trial: Trial) -> str:
        """Returns how a trial is trained, in one line."""

    @abstractmethod
    def label(self, trial: Trial) -> str:
        """Returns the same in a few words."""

    def needs(self, trial: Trial) -> Needs:
        """Returns what Ray reserves for a trial's process."""
        return trial.needs

    def settings(self, trial: Trial) -> dict[str, Any]:
        """Returns a trial's settings as fields of the whole."""
        return trial.model_dump(mode="json")

    def again(self, whole: Whole, trial: Trial) -> Trial:
        """Returns a trial's configuration as it is trained again behind the search."""
        return trial

    def of(self, record: Record) -> Trial:
        """Returns the configuration of a trial."""
        return self.trains.model_validate(record.config)

    def name(self, record: Record) -> str:
        """Returns the name of a trial's run: its number and what characterises it."""
        base = " base" if record.number == BASE else ""
        return f"trial {record.number:03d} {self.label(self.of(record))}{base}"
