"""One run of a pipeline: planned, or executed and left in one folder."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ebflow.errors import BadInput
from pipelines import store
from pipelines.cluster.logs import writing
from pipelines.config import Section
from pipelines.config.files import dump
from pipelines.engine import Artefact, Outcome, Status, finished
from pipelines.engine.checks import reported
from pipelines.engine.pipeline import Run
from pipelines.engine.tracked import Tracked
from pipelines.reporting.progress import Progress
from pipelines.store import storage
from pipelines.store.files import write_json
from pipelines.tracking import reaching
from pipelines.tracking.notes import NOTE, note

if TYPE_CHECKING:
    from pipelines.tracking import StageRun


def plan(run: Run, inputs: object) -> dict[str, str]:
    """Returns for each stage whether it would run or is cached; writes nothing."""
    with storage.reaching():
        found = {} if run.force else _found(run, inputs)
    missing = Status(ran=1)
    return {
        stage: _planned(found.get(stage, missing)) for stage in run.pipeline.stages(run.config)
    }


def _found(run: Run, inputs: object) -> Mapping[str, Status]:
    """Returns what a run would find of its stages, and what it would run."""
    if whole := finished.found(run.pipeline.key(run.name, run.config, inputs)):
        return whole.statuses
    from pipelines.engine.planning import plan

    return plan(run.pipeline.graph(run.config, inputs))


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


def _evaluated(run: Run, inputs: object, tracked: Tracked, progress: Progress) -> Outcome:
    from pipelines.engine.evaluation import Engine

    stages = Engine(
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


def _publish(run: Run, outcome: Outcome, tracked: Tracked) -> dict[str, Any]:
    run_id, made = tracked.run_id(), tracked.made
    run.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=run.output) as name:
        draft = Path(name)
        numbers = run.pipeline.publish(run.config, outcome.value, draft)
        summary = {**numbers, **_known(run, draft, outcome), "mlflow_run_id": run_id}
        (draft / "config.yaml").write_text(dump(run.config))
        write_json(draft / "summary.json", summary)
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
    if summary.exists() and reported(summary) != _json(run.config):
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
