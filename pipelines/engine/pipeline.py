"""A pipeline, and a run of it as the user asks for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import Section
from pipelines.engine.stages import key_of

if TYPE_CHECKING:
    from pipelines.tracking.run import StageRun


@dataclass(frozen=True)
class Description:
    """The description of a run in MLflow before it has results."""

    parts: tuple[str, ...]  #: The parts of its name, most important first
    about: str  #: Its content in Markdown
    tags: Mapping[str, str]  #: Tags to find it by


@dataclass(frozen=True)
class Pipeline:
    """A pipeline, as its functions."""

    name: str  #: The name of its command, its experiment in MLflow and its folder of results
    #: Returns artefacts by name, as expressions of redun, from a configuration and its inputs. The
    #: artefact ``report`` has the result (:mod:`pipelines.reporting.result`).
    graph: Callable[[Any, Any], Any]
    describe: Callable[[Any], Description]  #: Returns the description of a run of a configuration
    #: Returns the inputs of the graph of a configuration; raises BadInput, writes nothing
    check: Callable[[Any], Any] = lambda config: None
    #: Reads all data of a configuration; raises BadInput at the first problem
    examine: Callable[[Any], None] = lambda config: None
    #: Copies files of the artefacts into the folder of results, besides the report's
    add_files: Callable[[Any, Path], None] = lambda artefacts, folder: None
    #: Logs anything besides configuration, metrics and files to the MLflow run, from the artefacts
    #: and the folder of results
    log: Callable[[Any, Path, "StageRun"], None] = lambda artefacts, folder, run: None
    #: The class of its configuration; its docstring is the start of the help
    config: type[Section] = Section


@dataclass(frozen=True)
class Run:
    """A run of a pipeline, as the user asks for it."""

    pipeline: Pipeline
    name: str  #: Name of the run
    config: Section
    output: Path  #: Folder for the results
    command: str  #: The command that reproduces the run
    recipe: str | None = None  #: The named configuration that it started from, if any
    force: bool = False  #: True if every stage runs again
    resume: bool = False  #: True if it must be unchanged since it was interrupted
    retries: int = 2  #: How often Ray runs a stage again whose process died, or after an OSError

    def key(self, inputs: object) -> str:
        """Returns the key of pipeline, name, configuration and content of the inputs."""
        return key_of(self.pipeline.name, self.name, self.config, inputs)
