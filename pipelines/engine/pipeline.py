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
    """The description of a run in MLflow before it has results.

    Arguments:
        parts: The parts of its name, most important first.
        about: Its content in Markdown.
        tags: Tags to find it by.
    """

    parts: tuple[str, ...]
    about: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Pipeline:
    """A pipeline, as its functions.

    Arguments:
        name: The name of its command, its experiment in MLflow and its folder of results.
        check: Returns the inputs of the graph of a configuration; raises BadInput, writes nothing.
        examine: Reads all data of a configuration; raises BadInput at the first problem.
        graph: Returns artefacts by name, as expressions of redun, from a configuration and its
            inputs. The artefact ``report`` has the result (:mod:`pipelines.reporting.result`).
        describe: Returns the description of a run of a configuration.
        add_files: Copies files of the artefacts into the folder of results, besides the report's.
        log: Logs anything besides configuration, metrics and files to the MLflow run, from the
            artefacts and the folder of results.
        config: The class of its configuration; its docstring is the start of the help.
    """

    name: str
    graph: Callable[[Any, Any], Any]
    describe: Callable[[Any], Description]
    check: Callable[[Any], Any] = lambda config: None
    examine: Callable[[Any], None] = lambda config: None
    add_files: Callable[[Any, Path], None] = lambda artefacts, folder: None
    log: Callable[[Any, Path, "StageRun"], None] = lambda artefacts, folder, run: None
    config: type[Section] = Section


@dataclass(frozen=True)
class Run:
    """A run of a pipeline, as the user asks for it.

    Arguments:
        name: Name of the run.
        output: Folder for the results.
        command: The command that reproduces the run.
        recipe: The named configuration that it started from, if any.
        force: True if every stage runs again.
        resume: True if it must be unchanged since it was interrupted.
        retries: How often Ray runs a stage again whose process died, or after an OSError.
    """

    pipeline: Pipeline
    name: str
    config: Section
    output: Path
    command: str
    recipe: str | None = None
    force: bool = False
    resume: bool = False
    retries: int = 2

    def key(self, inputs: object) -> str:
        """Returns the key of pipeline, name, configuration and content of the inputs."""
        return key_of(self.pipeline.name, self.name, self.config, inputs)
