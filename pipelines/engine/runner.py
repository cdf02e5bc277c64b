"""One run of a pipeline: checked, executed, tracked, and left in one folder."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ebflow.errors import BadInput
from pipelines import engine, store
from pipelines.cluster.logs import writing
from pipelines.config import Section
from pipelines.config.files import dump
from pipelines.engine import Artefact, Context, Outcome, Retries, Status, finished
from pipelines.engine.pipeline import Pipeline
from pipelines.reporting.progress import Progress
from pipelines.store import storage
from pipelines.store.urls import is_url, without_password
from pipelines.tracking import reaching, reading
from pipelines.tracking.notes import NOTE, note

if TYPE_CHECKING:
    from pipelines.tracking import StageRun, Tracker

LEFT = ("checkpoint", "figures", "report.html", "config.yaml")


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


def check(run: Run) -> Any:  # noqa: ANN401
    """Checks what can be checked before anything is written; returns the graph's inputs.

    Raises:
        BadInput: Naming the option or file, what was found, and what was expected.
    """
    _check_output(run.output)
    _check_folder("EBFLOW_HOME", store.home())
    if storage.used():
        storage.check(store.home(), run.output)
        _check_tracking()
    return run.pipeline.check(run.config)


def _check_output(output: Path) -> None:
    if is_url(str(output)):
        raise BadInput(f"--output: found {without_password(str(output))}, expected a folder")
    _check_folder("--output", output)
    left = [name for name in LEFT if (output / name).exists()]
    if (output / "summary.json").exists():
        _reported(output / "summary.json")
    elif left:
        raise BadInput(f"--output: found {output / left[0]}, which no run left, expected none")


def _reported(summary: Path) -> Any:  # noqa: ANN401
    """Returns the configuration that a summary tells; raises BadInput if it is no summary."""
    try:
        return json.loads(summary.read_text())["config"]
    except (KeyError, RecursionError, TypeError, ValueError):
        raise BadInput(f"--output: found {summary}, which no run left, expected none") from None


def _check_tracking() -> None:
    """Raises BadInput if nodes with stores of their own would keep runs of their own."""
    if "RAY_ADDRESS" in os.environ and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise BadInput(
            f"MLFLOW_TRACKING_URI: found none beside {storage.VARIABLE} on a cluster, expected an "
            "MLflow server that all nodes reach"
        )


def _check_folder(option: str, folder: Path) -> None:
    """Raises BadInput unless the folder is there, or can be made, and can be written to."""
    near = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not near.is_dir():
        raise BadInput(f"{option}: found the file {near}, expected a folder")
    try:
        with tempfile.TemporaryFile(dir=near):
            pass
    except OSError as error:
        line = f"{option}: found {near}, where one may not write ({error.strerror})"
        raise BadInput(f"{line}, expected a folder") from None


def plan(run: Run, inputs: object) -> dict[str, str]:
    """Returns for each stage whether it would run or is cached; writes nothing."""
    found: Mapping[str, Status] = {}
    if not run.force:
        with storage.reaching():
            whole = finished.found(run.pipeline.key(run.name, run.config, inputs))
            graph = run.pipeline.graph
            found = whole.statuses if whole else engine.plan(graph(run.config, inputs))
    missing = Status(ran=1)
    return {
        stage: _planned(found.get(stage, missing)) for stage in run.pipeline.stages(run.config)
    }


def _planned(status: Status) -> str:
    if status.ran and status.cached:
        return f"{status.ran} run, others cached"
    return "run" if status.ran else "cached"


def execute(run: Run, inputs: object, console: Console) -> dict[str, Any]:
    """Runs what is not cached, and leaves the results in the output folder.

    Returns:
        The summary, as in ``summary.json``.
    """
    key = run.pipeline.key(run.name, run.config, inputs)
    with _clean_home(), writing(log_file(run)), _locked(run, key, console):
        with reaching(), ExitStack() as stack:
            tracked = Tracked(run, key, stack, console)
            progress = stack.enter_context(Progress(console))
            whole = None if run.force else finished.found(key)
            outcome = whole or _evaluated(run, inputs, tracked, progress)
            progress.started("track", "")
            summary = _publish(run, outcome, tracked)
            progress.finished("track", "")
            if storage.used():
                console.print(f"results also at {_stored(run)}", soft_wrap=True)
            return summary


def _evaluated(run: Run, inputs: object, tracked: "Tracked", progress: Progress) -> Outcome:
    stages = engine.Engine(
        open_context=tracked.context,
        progress=progress,
        force=run.force,
        retries=run.retries,
        launches=run.pipeline.launches(run.config),
        meanwhile=run.pipeline.meanwhile,
    )
    outcome = stages.run(run.pipeline.graph(run.config, inputs))
    finished.remember(tracked.key, outcome, run.pipeline.stages(run.config))
    return outcome


def _stored(run: Run) -> str:
    """Copies the results to the storage; returns their place there."""
    name = f"runs/{run.pipeline.name}/{run.name}"
    with store.lock(f"results-{run.pipeline.name}-{run.name}"), storage.reaching():
        storage.remove(name)
        storage.put(run.output, name)
    return storage.location(name)


def log_file(run: Run) -> Path:
    """Returns the file that what happens is written to."""
    return store.home() / "logs" / f"{run.name}.log"


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

    def run_id(self) -> str:
        """Returns the id of the run; if all is cached, of that of an earlier, equal command."""
        if self.made is not None:
            return self.made.id
        own = {"ebflow.pipeline_key": self.key, "ebflow.store": store.identity()}
        runs = reading.opened().runs(own)
        found = next((run.id for run in runs if run.is_finished_pipeline), None)
        if found is None:
            return self.context().parent
        if any(run.status == "RUNNING" for run in runs):
            self._connect()
        return found

    def _connect(self) -> "Tracker":
        from pipelines.tracking import connect

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


def _publish(run: Run, outcome: Outcome, tracked: Tracked) -> dict[str, Any]:
    run_id, made = tracked.run_id(), tracked.made
    run.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=run.output) as name:
        draft = Path(name)
        numbers = run.pipeline.publish(run.config, outcome.value, draft)
        summary = {**numbers, **_known(run, draft, outcome), "mlflow_run_id": run_id}
        (draft / "config.yaml").write_text(dump(run.config))
        (draft / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        left = sorted(entry.name for entry in draft.iterdir())
        for entry in left:
            _replace(draft / entry, run.output / entry)
    if made is not None:
        _log(run, outcome, made, left)
        made.log_metrics(run.pipeline.metrics(summary))
        about = run.pipeline.describe(run.config).about
        made.set_tags({NOTE: note(about, run.command, run.pipeline.conclude(summary))})
    stages = {stage: str(outcome.statuses[stage]) for stage in run.pipeline.stages(run.config)}
    return {**summary, "stages": stages}


def _known(run: Run, draft: Path, outcome: Outcome) -> dict[str, Any]:
    """Returns what the summary of every pipeline has; each entry of the folder by its name."""
    places = {path.stem: str(run.output.absolute() / path.name) for path in draft.iterdir()}
    return {
        **places,
        "name": run.name,
        "artefacts": _by_stage(outcome, lambda artefact: artefact.location),
        "config": _json(run.config),
        "command": run.command,
    }


def _by_stage(outcome: Outcome, describe: Callable[[Artefact], str]) -> dict[str, Any]:
    """Returns what is told of a stage's artefact, or the list of it where there are several."""
    found: dict[str, list[str]] = {}
    for artefact in outcome.artefacts:
        found.setdefault(artefact.stage, []).append(describe(artefact))
    return {stage: some[0] if len(some) == 1 else some for stage, some in found.items()}


def _joined(found: str | list[str]) -> str:
    return found if isinstance(found, str) else " ".join(found)


def _replace(new: Path, old: Path) -> None:
    if old.is_dir():
        shutil.rmtree(old)
    new.replace(old)


def _log(run: Run, outcome: Outcome, made: "StageRun", left: Iterable[str]) -> None:
    """Tells MLflow's run all that is known, and what was left but for a model's checkpoint."""
    keys = _by_stage(outcome, lambda artefact: artefact.key)
    runs = _by_stage(outcome, lambda artefact: artefact.record.run_id)
    made.set_tags({f"ebflow.key.{stage}": _joined(key) for stage, key in keys.items()})
    made.set_tags({f"ebflow.stage.{stage}": _joined(run_id) for stage, run_id in runs.items()})
    made.log_params(run.config.model_dump())
    run.pipeline.log(run.config, outcome.value, run.output, made)
    for path in (run.output / name for name in left if name != "checkpoint"):
        made.log_artifacts(path, path.name if path.is_dir() else None)


@contextmanager
def _locked(run: Run, key: str, console: Console) -> Iterator[None]:
    """Lets one process at a time run a pipeline, and write to a folder of results."""
    place = hashlib.sha256(str(run.output.resolve()).encode()).hexdigest()

    def wait(what: str) -> Callable[[], None]:
        line = f"another process {what}: waiting for it"
        return lambda: console.print(line)

    with (
        store.lock(f"run-{key[:20]}", waiting=wait("runs the same pipeline")),
        store.lock(f"output-{place[:20]}", waiting=wait(f"writes to {run.output}")),
    ):
        _announce(run, console)
        yield


def _announce(run: Run, console: Console) -> None:
    """Says so if results of another configuration will be replaced; clears what a kill left."""
    for draft in run.output.glob(".draft-*"):
        shutil.rmtree(draft)
    summary = run.output / "summary.json"
    if summary.exists() and _reported(summary) != _json(run.config):
        console.print(
            f"{run.output}: will be replaced; it has the results of another configuration, which "
            "the store and MLflow keep (choose another place by --name or --output)"
        )


def _json(config: Section) -> Any:  # noqa: ANN401
    return config.model_dump(mode="json")


def _finished() -> bool:
    """Whether the store has an artefact of a stage that took long."""
    return any(path.name != "prepare" for path in (store.home() / "artefacts").glob("*"))


@contextmanager
def _clean_home() -> Iterator[None]:
    """Takes back a store that bad input made, if nothing is finished and nobody else uses it."""
    fresh, parent = not store.home().exists(), store.home().parent
    made = not parent.exists()
    with store.alone() as alone:
        try:
            yield
        except BadInput:
            if fresh and not _finished() and alone():
                shutil.rmtree(store.home(), ignore_errors=True)
                if made:
                    with suppress(OSError):
                        parent.rmdir()
            raise
