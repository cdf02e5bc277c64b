"""The MLflow run of a pipeline."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rich.console import Console

from pipelines import store
from pipelines.engine.pipeline import Run
from pipelines.engine.stages import Context
from pipelines.store.paths import without_password
from pipelines.tracking.notes import NOTE, note

if TYPE_CHECKING:
    from pipelines.tracking.run import StageRun
    from pipelines.tracking.tracker import Tracker


class Tracked:
    """The MLflow run of a pipeline, made when the first stage runs.

    Arguments:
        run: What the user asked for.
        key: The pipeline's key.
        stack: Ends the run.
        console: Is told which run it is.
    """

    def __init__(self, run: Run, key: str, stack: ExitStack, console: Console) -> None:
        self.run, self.key, self.stack, self.console = run, key, stack, console
        self.made: StageRun | None = None

    def context(self) -> Context:
        """Makes the run; returns what the stages need of it."""
        tracker = self._connect()
        self.made = self._start(tracker)
        return Context(tracker, self.made.id, self.run.command, self.run.force)

    def run_id(self, keys: Mapping[str, str]) -> str:
        """Returns the id of the run; if all is cached, that of an earlier, equal command.

        Arguments:
            keys: Tags that name the run's artefacts.
        """
        if self.made is not None:
            return self.made.id
        from pipelines.tracking import history

        tracker = self._connect()
        tags = {"ebflow.pipeline_key": self.key, "ebflow.store": store.identity(), **keys}
        own = {**tags, "ebflow.role": "pipeline"}
        runs = history.tagged(tracker.client, self.run.pipeline.name, own)
        finished = (run.info.run_id for run in runs if run.info.status == "FINISHED")
        return next(finished, None) or self.context().parent

    def _connect(self) -> "Tracker":
        from pipelines.tracking.tracker import connect

        tracker = connect(self.run.pipeline.name, self.key)
        tracker.reclaim()
        return tracker

    def _start(self, tracker: "Tracker") -> "StageRun":
        run = self.run
        description = run.pipeline.describe(run.config)
        recipe = {"ebflow.recipe": run.recipe} if run.recipe else {}
        tags = {
            "ebflow.role": "pipeline",
            "ebflow.name": run.name,
            NOTE: note(description.about, run.command),
            **recipe,
            **description.tags,
        }
        run_id = tracker.start(_title(run, description.parts), tags)
        line = f"MLflow run {run_id} at {without_password(tracker.uri)}"
        self.console.print(line, soft_wrap=True)
        return self.stack.enter_context(tracker.run(run_id))


def _title(run: Run, parts: Iterable[str]) -> str:
    """Returns the name in MLflow: what tells this run from others, each word once."""
    names = dict.fromkeys([run.name, *parts])
    recipe = [f"recipe {run.recipe}"] if run.recipe and run.recipe not in names else []
    return " · ".join([*names, *recipe])
