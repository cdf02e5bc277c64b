"""From the value of a pipeline's graph to its results: one folder, and its MLflow run."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.config.files import dump
from pipelines.engine.calls import Context
from pipelines.engine.pipeline import Run
from pipelines.engine.stages import Artefact
from pipelines.reporting.renderers import markdown
from pipelines.store.files import without_password, write_json

if TYPE_CHECKING:
    from pipelines.engine.graphs import Outcome
    from pipelines.tracking.run import StageRun
    from pipelines.tracking.tracker import Tracker


REPORT = "ebflow.report"
"""The tag of a command's run that has the key of its report."""


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
        run, tracker = self.run, self._connect()
        description = run.pipeline.describe(run.config)
        tags = {
            "ebflow.role": "pipeline",
            "ebflow.name": run.name,
            **({"ebflow.recipe": run.recipe} if run.recipe else {}),
            **description.tags,
        }
        run_id = tracker.start(_title(run, description.parts), tags)
        line = f"MLflow run {run_id} at {without_password(tracker.client.tracking_uri)}"
        self.console.print(line, soft_wrap=True)
        self.created = self.stack.enter_context(tracker.run(run_id, run.command))
        self.created.describe(description.about)
        return Context(tracker, run_id, run.command, run.force, run.retries)

    def run_id(self, report: Artefact) -> str:
        """Returns the id of the run; if all is cached, that of an earlier, equal command."""
        if self.created is None:
            tags = {"ebflow.role": "pipeline", REPORT: report.key}
            if earlier := self._connect().runs("FINISHED", tags):
                return earlier[0].info.run_id
            self.context()
        return self.created.id

    def _connect(self) -> "Tracker":
        from pipelines.tracking.tracker import connect

        tracker = connect(self.run.pipeline.name, self.key)
        tracker.reclaim()
        return tracker


def publish(run: Run, outcome: "Outcome", tracked: Tracked) -> dict[str, Any]:
    """Writes the folder of results and logs it to MLflow; returns the summary."""
    report = outcome.value["report"]
    summary = {
        **json.loads((report.path / "summary.json").read_text()),
        "name": run.name,
        "artefacts": {
            stage: places[0] if len(places) == 1 else places
            for stage, places in _by_stage(outcome, lambda artefact: artefact.location).items()
        },
        "config": run.config.model_dump(mode="json"),
        "command": run.command,
        "mlflow_run_id": tracked.run_id(report),
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
        names = _moved(draft, run.output)
    if tracked.created is not None:
        _log(run, outcome, tracked.created, summary, names)
    stages = {stage: status.text() for stage, status in outcome.statuses.items()}
    return {**summary, **files, "stages": stages, "files": files}


def _by_stage(outcome: "Outcome", describe: Callable[[Artefact], str]) -> dict[str, list[str]]:
    """Returns a text for each artefact, in a list for each stage."""
    texts: dict[str, list[str]] = {}
    for artefact in outcome.artefacts:
        texts.setdefault(artefact.stage, []).append(describe(artefact))
    return texts


def _moved(draft: Path, output: Path) -> list[str]:
    """Moves the results to their places; returns their names."""
    names = sorted(entry.name for entry in draft.iterdir())
    for name in names:
        if (output / name).is_dir():
            shutil.rmtree(output / name)
        (draft / name).replace(output / name)
    return names


def _log(
    run: Run,
    outcome: "Outcome",
    created: "StageRun",
    summary: Mapping[str, Any],
    names: Iterable[str],
) -> None:
    """Logs stages, configuration, numbers and files to MLflow; the model has the checkpoint."""
    runs = _by_stage(outcome, lambda artefact: artefact.run_id)
    tags = {f"ebflow.stage.{stage}": " ".join(some) for stage, some in runs.items()}
    created.set_tags({REPORT: outcome.value["report"].key, **tags})
    created.log_params(run.config.model_dump())
    run.pipeline.log(outcome.value, run.output, created)
    for path in (run.output / name for name in names if name != "checkpoint"):
        created.log_artifacts(path, path.name if path.is_dir() else None)
    numbers = {name: n for name, n in summary.items() if isinstance(n, int | float)}
    created.log_metrics({name: summary[name] for name in summary["metrics"]})
    created.log_params({name: n for name, n in numbers.items() if name not in summary["metrics"]})
    created.describe(run.pipeline.describe(run.config).about, markdown(summary))


def _title(run: Run, parts: Iterable[str]) -> str:
    """Returns the name in MLflow, with each word once."""
    recipe = [] if run.recipe in (None, run.name, *parts) else [f"recipe {run.recipe}"]
    return " · ".join(dict.fromkeys([run.name, *parts, *recipe]))
