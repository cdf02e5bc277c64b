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
        return Context(tracker, run_id, run.command, run.force)

    def run_id(self, keys: Mapping[str, str]) -> str:
        """Returns the id of the run; if all is cached, that of an earlier, equal command.

        Arguments:
            keys: Tags that name the run's artefacts.
        """
        if self.created is not None:
            return self.created.id
        runs = self._connect().runs("FINISHED", {"ebflow.role": "pipeline", **keys})
        return runs[0].info.run_id if runs else self.context().parent

    def _connect(self) -> "Tracker":
        from pipelines.tracking.tracker import connect

        tracker = connect(self.run.pipeline.name, self.key)
        tracker.reclaim()
        return tracker


def publish(run: Run, outcome: "Outcome", tracked: Tracked) -> dict[str, Any]:
    """Writes the folder of results and logs it to MLflow; returns the summary."""
    keys = _by_stage(outcome, lambda artefact: artefact.key)
    tags = {f"ebflow.key.{stage}": " ".join(some) for stage, some in keys.items()}
    run_id = tracked.run_id(tags)
    run.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=run.output) as folder:
        draft = Path(folder) / "results"
        shutil.copytree(outcome.value["report"].path, draft)
        result = json.loads((draft / "summary.json").read_text())
        (draft / "summary.json").unlink()
        run.pipeline.add_files(outcome.value, draft)
        files = {path.stem: str(run.output.absolute() / path.name) for path in draft.iterdir()}
        places = _by_stage(outcome, lambda artefact: artefact.location)
        summary = {
            **result,
            **files,
            "name": run.name,
            "artefacts": {stage: p[0] if len(p) == 1 else p for stage, p in places.items()},
            "config": run.config.model_dump(mode="json"),
            "command": run.command,
            "mlflow_run_id": run_id,
        }
        (draft / "config.yaml").write_text(dump(run.config))
        write_json(draft / "summary.json", summary)
        names = _moved(draft, run)
    if tracked.created is not None:
        tracked.created.set_tags(tags)
        _log(run, outcome, tracked.created, names)
        metrics = {name: result[name] for name in result["metrics"]}
        numbers = {name: n for name, n in result.items() if isinstance(n, int | float)}
        tracked.created.log_metrics(metrics)
        tracked.created.log_params({name: n for name, n in numbers.items() if name not in metrics})
        about = run.pipeline.describe(run.config).about
        tracked.created.describe(about, markdown(summary))
    stages = {stage: status.text() for stage, status in outcome.statuses.items()}
    return {**summary, "stages": stages, "files": files}


def _by_stage(outcome: "Outcome", describe: Callable[[Artefact], str]) -> dict[str, list[str]]:
    """Returns a text for each artefact, in a list for each stage."""
    texts: dict[str, list[str]] = {}
    for artefact in outcome.artefacts:
        texts.setdefault(artefact.stage, []).append(describe(artefact))
    return texts


def _moved(draft: Path, run: Run) -> list[str]:
    """Moves the results to their places; returns their names."""
    names = sorted(entry.name for entry in draft.iterdir())
    for name in names:
        if (run.output / name).is_dir():
            shutil.rmtree(run.output / name)
        (draft / name).replace(run.output / name)
    return names


def _log(run: Run, outcome: "Outcome", created: "StageRun", names: Iterable[str]) -> None:
    """Logs stages, configuration and files to MLflow; the model has the checkpoint."""
    runs = _by_stage(outcome, lambda artefact: artefact.record.run_id)
    created.set_tags({f"ebflow.stage.{stage}": " ".join(some) for stage, some in runs.items()})
    created.log_params(run.config.model_dump())
    run.pipeline.log(outcome.value, run.output, created)
    for path in (run.output / name for name in names if name != "checkpoint"):
        created.log_artifacts(path, path.name if path.is_dir() else None)


def _title(run: Run, parts: Iterable[str]) -> str:
    """Returns the name in MLflow, with each word once."""
    names = dict.fromkeys([run.name, *parts])
    recipe = [f"recipe {run.recipe}"] if run.recipe and run.recipe not in names else []
    return " · ".join([*names, *recipe])
