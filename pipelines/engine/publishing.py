"""From the value of a pipeline's graph to its results: one folder, and its MLflow run."""

import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines import store
from pipelines.config import Section
from pipelines.config.files import dump
from pipelines.engine import Artefact
from pipelines.engine.checks import reported
from pipelines.engine.pipeline import Run
from pipelines.engine.tracked import Tracked
from pipelines.reporting.renderers import markdown
from pipelines.reporting.result import metrics, parameters
from pipelines.store import bucket
from pipelines.store.files import write_json
from pipelines.tracking.notes import NOTE, note

if TYPE_CHECKING:
    from pipelines.engine.evaluation import Outcome
    from pipelines.tracking.run import StageRun


def publish(run: Run, outcome: "Outcome", tracked: Tracked) -> dict[str, Any]:
    """Writes the folder of results and logs it to MLflow; returns the summary."""
    run_id, made = tracked.run_id(_keys(outcome)), tracked.made
    run.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=run.output) as name:
        draft = Path(name)
        found = run.pipeline.publish(outcome.value, draft)
        files = {path.stem: str(run.output.absolute() / path.name) for path in draft.iterdir()}
        summary = {**found, **files, **_known(run, outcome), "mlflow_run_id": run_id}
        (draft / "config.yaml").write_text(dump(run.config))
        write_json(draft / "summary.json", summary)
        left = sorted(entry.name for entry in draft.iterdir())
        for entry in left:
            _replace(draft / entry, run.output / entry)
    if made is not None:
        made.log_metrics(metrics(found))
        made.log_params(parameters(found))
        _log(run, outcome, made, left)
        about = run.pipeline.describe(run.config).about
        made.set_tags({NOTE: note(about, run.command, markdown(summary))})
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


def _log(run: Run, outcome: "Outcome", made: "StageRun", left: Iterable[str]) -> None:
    """Logs stages, configuration and files to MLflow; the model has the checkpoint."""
    runs = _by_stage(outcome, lambda artefact: artefact.record.run_id)
    made.set_tags(_keys(outcome))
    made.set_tags({f"ebflow.stage.{stage}": _joined(run_id) for stage, run_id in runs.items()})
    made.log_params(run.config.model_dump())
    run.pipeline.log(outcome.value, run.output, made)
    for path in (run.output / name for name in left if name != "checkpoint"):
        made.log_artifacts(path, path.name if path.is_dir() else None)


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
