"""What differs between searches: the problem, as its functions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config import Section
from pipelines.engine import Artefact, Source, Stage
from pipelines.engine.demand import Needs
from tuning.config import SearchConfig
from tuning.goals import Goal
from tuning.records import Record
from tuning.suggest import Suggest


class Killed(Exception):
    """Ends a trial by a rule; the message is its line."""


@dataclass(frozen=True)
class Given:
    """What a trial is given besides its configuration.

    Attributes:
        search: The search.
        inputs: The folders that trials read, prepared data first.
        folder: The trial's own.
    """

    search: SearchConfig
    inputs: tuple[Path, ...]
    folder: Path


@dataclass(frozen=True)
class Problem:
    """A search problem: what is trained, over what, for which goals, and how winners are judged.

    Attributes:
        pipeline: Name of the pipeline whose settings are searched.
        search: Type of the search's configuration.
        config: Type of a trial's configuration.
        goals: From the search and the base to the goals; the first names the winner, and is what
            trials that fall behind are stopped by.
        check: From the pipeline's configuration to the data's source and the configuration as
            it is searched from, with the rows for selection held out; raises BadInput.
        base: From the search and the pipeline's configuration to what trials start from.
        whole: From a trial's configuration and the pipeline's to one that is trained again.
        best: From the pipeline's configuration as the user gave it, and the winner's, to the
            pipeline's with the winner's settings.
        propose: From suggestions, the search and the base to the configuration of a trial.
        train: Trains a trial, and reports ``step``, ``seconds``, ``share`` and the goals to Ray
            Tune; raises ``Killed`` where a rule ends it.
        needs: From a trial's configuration to what Ray reserves for its process.
        too_large: From a trial's configuration, and what it needs more of than there is, to the
            option that makes it so, and what to change.
        before: The stages whose artefacts trials read.
        after: Those of a training behind the search, besides these.
        inputs: From the search, the pipeline's configuration and the source to what trials read,
            as expressions of redun: prepared data first.
        measured: From the pipeline's configuration, a trial's, a title and the inputs to what a
            training behind the search leaves, as expressions of redun.
        scores: From the folders of these to the goals by split: ``select`` and ``test``.
        method: From a trial's configuration to how it was trained, in one line.
        label: The same in a few words.
        settings: From a trial's configuration to fields of the pipeline's.
        about: What the goals are, for the page.
    """

    pipeline: str
    search: type[SearchConfig]
    config: type[Section]
    goals: Callable[[Any, Any], tuple[Goal, ...]]
    check: Callable[[Any], tuple[Source, Any]]
    base: Callable[[Any, Any], Any]
    whole: Callable[[Any, Any], Any]
    best: Callable[[Any, Any], Section]
    propose: Callable[[Suggest, Any, Any], Any]
    train: Callable[[Any, Given], None]
    needs: Callable[[Any], Needs]
    too_large: Callable[[Any, str], tuple[str, str]]
    before: tuple[Stage, ...]
    after: tuple[Stage, ...]
    inputs: Callable[[Any, Any, Source], tuple[Artefact, ...]]
    measured: Callable[[Any, Any, str, tuple[Artefact, ...]], tuple[Artefact, ...]]
    scores: Callable[[Sequence[Path]], Mapping[str, Mapping[str, float]]]
    method: Callable[[Any], str]
    label: Callable[[Any], str]
    settings: Callable[[Any], dict[str, Any]]
    about: str

    def of(self, record: Record) -> Any:  # noqa: ANN401
        """Returns the configuration of a trial."""
        return self.config.model_validate(record.config)

    def name(self, record: Record) -> str:
        """Returns the name of a trial's run: its number and what characterises it."""
        parts = [f"trial {record.number:03d}", self.label(self.of(record))]
        return " ".join([*parts, *(["base"] if record.number == 0 else [])])
