"""From the value of a pipeline's graph to its results: one folder, and its MLflow run."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config.files import dump
from pipelines.engine.session import REPORT, Session
from pipelines.reporting.renderers import markdown
from pipelines.store.files import write_json

if TYPE_CHECKING:
    from pipelines.engine.graphs import Outcome
    from pipelines.tracking.run import StageRun


def publish(session: Session, outcome: "Outcome") -> dict[str, Any]:
    """Writes the folder of results and logs it to MLflow; returns the summary."""
    run, report = session.run, outcome.value["report"]
    summary = {
        **json.loads((report.path / "summary.json").read_text()),
        "name": run.name,
        "artefacts": {
            stage: places[0] if len(places) == 1 else places
            for stage, places in outcome.by_stage("location").items()
        },
        "config": run.config.model_dump(mode="json"),
        "command": run.command,
        "mlflow_run_id": session.run_id(report),
    }
    run.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=run.output) as folder:
        draft = Path(folder) / "results"
        shutil.copytree(report.path, draft)
        (draft / "summary.json").unlink()
        run.pipeline.add_files(outcome.value, draft)
        files = {path.stem: str(run.output.absolute() / path.name) for path in draft.iterdir()}
        (draft / "config.yaml").write_text(dump(run.config))
        write_json(draft / "summary.json", {**summary, **files})
        places = _moved(draft, run.output)
    if session.tracked is not None:
        _log(session, session.tracked, outcome, summary, places)
    stages = {stage: status.text() for stage, status in outcome.statuses.items()}
    return {**summary, **files, "stages": stages, "files": files}


def _moved(draft: Path, output: Path) -> list[Path]:
    """Moves the results to their places, in place of earlier ones; returns these places."""
    places = [output / entry.name for entry in sorted(draft.iterdir())]
    for place in places:
        if place.is_dir():
            shutil.rmtree(place)
        (draft / place.name).replace(place)
    return places


def _log(
    session: Session,
    tracked: "StageRun",
    outcome: "Outcome",
    summary: Mapping[str, Any],
    places: Iterable[Path],
) -> None:
    """Logs stages, configuration, numbers and files to MLflow; the model has the checkpoint."""
    run, metrics = session.run, summary["metrics"]
    stages = outcome.by_stage("run_id").items()
    tags = {f"ebflow.stage.{stage}": " ".join(run_ids) for stage, run_ids in stages}
    tracked.set_tags({REPORT: outcome.value["report"].key, **tags})
    tracked.log_params(run.config.model_dump())
    run.pipeline.log(outcome.value, run.output, tracked)
    for path in places:
        if path.name != "checkpoint":
            tracked.log_artifacts(path, path.name if path.is_dir() else None)
    tracked.log_metrics({name: summary[name] for name in metrics})
    numbers = {name: n for name, n in summary.items() if isinstance(n, int | float)}
    tracked.log_params({name: n for name, n in numbers.items() if name not in metrics})
    tracked.describe(run.pipeline.describe(run.config).about, markdown(summary))
