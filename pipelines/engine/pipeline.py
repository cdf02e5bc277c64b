"""What makes a pipeline: its graph, what is checked before, and what it leaves for a person.

And a run of it, as the user asks for it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.config import Section
from pipelines.engine.keys import key_of
from pipelines.engine.retries import Retries
from pipelines.reporting import renderers, result

if TYPE_CHECKING:
    from pipelines.tracking.run import StageRun

Summary = dict[str, Any]


@dataclass(frozen=True)
class Description:
    """What MLflow is told of a run before it has results.

    Arguments:
        parts: What its name says, most important first.
        about: What it is; Markdown.
        tags: By what it may be found.
    """

    parts: tuple[str, ...]
    about: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Pipeline:
    """A pipeline, as its functions.

    Arguments:
        name: Of the command, the experiment and the folder of results.
        check: From a configuration to the inputs of the graph; raises BadInput, writes nothing.
        examine: From a configuration, raises BadInput at the first thing wrong with its data, as
            a run would; reads them all, writes nothing.
        graph: From a configuration and its inputs to artefacts, as expressions of redun.
        describe: From a configuration to what MLflow is told of a run of it.
        publish: Fills a new folder from the graph's artefacts, and returns the content of
            ``summary.json``.
        conclude: From a summary to the results in a run's description; Markdown.
        show: Prints the summary.
        metrics: From a summary to the metrics of MLflow's run of the pipeline.
        log: Logs to that run, from the artefacts and the folder, anything besides configuration,
            metrics and files of results.
        config: The class of its configuration; its docstring is the start of the help.
    """

    name: str
    check: Callable[[Any], Any]
    examine: Callable[[Any], None]
    graph: Callable[[Any, Any], Any]
    describe: Callable[[Any], Description]
    publish: Callable[[Any, Path], Summary] = result.publish
    conclude: Callable[[Mapping[str, Any]], str] = renderers.markdown
    show: Callable[[Console, Mapping[str, Any]], None] = renderers.show
    metrics: Callable[[Mapping[str, Any]], Mapping[str, float | None]] = result.metrics
    log: Callable[[Any, Path, "StageRun"], None] = lambda artefacts, folder, run: None
    config: type[Section] = Section


@dataclass(frozen=True)
class Run:
    """What the user asked for.

    Arguments:
        pipeline: Which pipeline.
        name: Name of the run.
        config: Its configuration.
        output: Folder for the results.
        command: The command that reproduces the run.
        recipe: The named configuration that it started from, if it did.
        force: Whether to run every stage again.
        retries: How often a stage is tried again after a failure that may pass.
    """

    pipeline: Pipeline
    name: str
    config: Section
    output: Path
    command: str
    recipe: str | None = None
    force: bool = False
    retries: Retries = Retries()

    def key(self, inputs: object) -> str:
        """Returns the key of its question: pipeline, name, configuration and content of inputs."""
        return key_of(self.pipeline.name, self.name, self.config, inputs)
