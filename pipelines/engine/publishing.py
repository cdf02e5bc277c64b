"""From the value of a pipeline's graph to its results: one folder, and its MLflow run."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines import store
from pipelines.config import Section
from pipelines.config.files import dump
from pipelines.engine import Artefact
from pipelines.engine.checks import reported
from pipelines.engine.pipeline import Run
from pipelines.engine.stages import Context
from pipelines.reporting.renderers import markdown
from pipelines.store import bucket
from pipelines.store.files import write_json
from pipelines.store.paths import without_password
from pipelines.tracking.notes import NOTE, note

if TYPE_CHECKING:
    from pipelines.engine.evaluation import Outcome
    from pipelines.tracking.run import StageRun
    from pipelines.tracking.tracker import Tracker


def publish(run: Run, outcome: "Outcome", tracked: "Tracked") -> dict[str, Any]:
    """Writes the folder of results and logs it to MLflow; returns the summary."""
    run_id, created = tracked.run_id(_keys(outcome)), tracked.created
    run.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=run.output) as name:
        draft = Path(name)
        shutil.copytree(outcome.value["report"].path, draft, dirs_exist_ok=True)
        found = json.loads((draft / "summary.json").read_text())
        (draft / "summary.json").unlink()
        run.pipeline.add_files(outcome.value, draft)
        files = {path.stem: str(run.output.absolute() / path.name) for path in draft.iterdir()}
        summary = {**found, **files, **_known(run, outcome), "mlflow_run_id": run_id}
        (draft / "config.yaml").write_text(dump(run.config))
        write_json(draft / "summary.json", summary)
        left = sorted(entry.name for entry in draft.iterdir())
        for entry in left:
            _replace(draft / entry, run.output / entry)
    if created is not None:
        metrics = {name: found[name] for name in found["metrics"]}
        numbers = {name: n for name, n in found.items() if isinstance(n, int | float)}
        created.log_metrics(metrics)
        created.log_params({name: n for name, n in numbers.items() if name not in metrics})
        _log(run, outcome, created, left)
        about = run.pipeline.describe(run.config).about
        created.set_tags({NOTE: note(about, run.command, markdown(summary))})
    stages = {stage: str(status) for stage, status in outcome.statuses.items()}
    return {**summary, "stages": stages, "files": files}


def _known(run: Run, outcome: "Outcome") -> dict[str, Any]:
    """Returns the part of a summary that every pipeline has."""
    return {
        "name": run.name,
        "artefacts": _by_stage(outcome, lambda artefact: artefact.location),
        "config": _json(run.config),
        "command": run.command,
    }


def _by_stage(outcome: "Outcome", describe: Callable[[Artefact], str]) -> dict[str, Any]:
    """Returns a text for each stage's artefact, or the list for several artefacts."""
    found: dict[str, list[str]] = {}
    for artefact in outcome.artefacts:
        found.setdefault(artefact.stage, []).append(describe(artefact))
    return {stage: some[0] if len(some) == 1 else some for stage, some in found.items()}


def _keys(outcome: "Outcome") -> dict[str, str]:
    """Returns the tags of a run that name its artefacts."""
    keys = _by_stage(outcome, lambda artefact: artefact.key)
    return {f"ebflow.key.{stage}": _joined(key) for stage, key in keys.items()}


def _joined(found: str | list[str]) -> str:
    return found if isinstance(found, str) else " ".join(found)


def _replace(new: Path, old: Path) -> None:
    if old.is_dir():
        shutil.rmtree(old)
    new.replace(old)


def _log(run: Run, outcome: "Outcome", created: "StageRun", left: Iterable[str]) -> None:
    """Logs stages, configuration and files to MLflow; the model has the checkpoint."""
    runs = _by_stage(outcome, lambda artefact: artefact.record.run_id)
    created.set_tags(_keys(outcome))
    created.set_tags({f"ebflow.stage.{stage}": _joined(run_id) for stage, run_id in runs.items()})
    created.log_params(run.config.model_dump())
    run.pipeline.log(outcome.value, run.output, created)
    for path in (run.output / name for name in left if name != "checkpoint"):
        created.log_artifacts(path, path.name if path.is_dir() else None)


def upload(run: Run) -> str:
    """Copies the results to the storage; returns their place there."""
    name = f"runs/{run.pipeline.name}/{run.name}"
    with store.lock(f"results-{run.pipeline.name}-{run.name}"), bucket.bucket_errors():
        bucket.remove(name)
        bucket.put(run.output, name)
    return bucket.place(name)


def announce(run: Run, console: Console) -> None:
    """Prints a line if other results will be replaced; removes drafts of killed processes."""
    for draft in run.output.glob(".draft-*"):
        shutil.rmtree(draft)
    summary = run.output / "summary.json"
    if summary.exists() and reported(summary) != _json(run.config):
        console.print(
            f"{run.output}: will be replaced; it has the results of another configuration, which "
            "the store and MLflow keep (choose another place by --name or --output)"
        )


def _json(config: Section) -> Any:  # noqa: ANN401
    return config.model_dump(mode="json")


class Tracked:
    """The MLflow run of a pipeline, created when the first stage runs.

    Arguments:
        run: The run of the pipeline.
        key: Its key.
        stack: Ends the MLflow run.
        console: The console that prints its id.
    """

    def __init__(self, run: Run, key: str, stack: ExitStack, console: Console) -> None:
        self.run, self.key, self.stack, self.console = run, key, stack, console
        self.created: StageRun | None = None

    def context(self) -> Context:
        """Creates the run; returns the context of its stages."""
        tracker = self._connect()
        self.created = self._start(tracker)
        return Context(tracker, self.created.id, self.run.command, self.run.force)

    def run_id(self, keys: Mapping[str, str]) -> str:
        """Returns the id of the run; if all is cached, that of an earlier, equal command.

        Arguments:
            keys: Tags that name the run's artefacts.
        """
        if self.created is not None:
            return self.created.id
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
    """Returns the name in MLflow, with each word once."""
    names = dict.fromkeys([run.name, *parts])
    recipe = [f"recipe {run.recipe}"] if run.recipe and run.recipe not in names else []
    return " · ".join([*names, *recipe])
