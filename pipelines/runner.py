"""One run of the density pipeline: checked, executed, tracked, and left in one folder."""

__all__ = ["Run", "check", "execute", "log_file", "plan"]

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from ebflow.data.schema import Manifest
from ebflow.data.sources import fingerprint, open_source
from ebflow.errors import BadInput
from pipelines import engine, rows, store
from pipelines.config import ClusterConfig, DensityConfig, dump
from pipelines.density import STAGES, density, key
from pipelines.engine import Artefact, Context, Engine, Outcome, Source
from pipelines.logs import writing
from pipelines.progress import Progress
from pipelines.tracking import StageRun, Tracker, connect, reaching

EXPERIMENT = "density"
EXAMPLES = 4
LEFT = ("checkpoint", "figures", "report.html", "config.yaml")
NOISED = ("dsm", "fd_ssm", "sml")


@dataclass(frozen=True)
class Run:
    """What the user asked for.

    Arguments:
        config: The configuration.
        output: Folder for the results.
        command: The command that reproduces the run.
        force: Whether to run every stage again.
    """

    config: DensityConfig
    output: Path
    command: str
    force: bool = False


def check(run: Run) -> Source:
    """Checks what can be checked before anything is written; returns the data's source.

    Raises:
        BadInput: Naming the option or file, what was found, and what was expected.
    """
    _check_output(run.output)
    _check_folder("EBFLOW_HOME", store.home())
    data = run.config.data
    reader = open_source(data.source, data.columns)
    counts = reader.counts(validation=data.validation, test=data.test, rows=data.rows)
    if run.config.train.batch_size > counts.train:
        raise BadInput(
            f"train.batch_size: found {run.config.train.batch_size}, "
            f"expected at most {counts.train} (the training rows of {reader.label})"
        )
    _check_domain(run.config, bounded=reader.layout.levels is not None)
    _check_gpus(run.config.cluster)
    return Source(data.source, fingerprint(data.source, data.columns))


def _check_domain(config: DensityConfig, *, bounded: bool) -> None:
    """Raises BadInput if an objective would leave the range on which the logit is defined."""
    front, name = config.preprocess, config.objective.name
    if bounded and front.logit is not None and not front.match_after and name in NOISED:
        raise BadInput(
            f"preprocess.match_after: found False with a logit and {name}, whose points leave the "
            "range of the data, expected True, or preprocess.logit None"
        )


def _check_gpus(config: ClusterConfig) -> None:
    """Raises BadInput if this machine lacks the GPUs; a cluster's are the cluster's to grant."""
    if not config.gpu or "RAY_ADDRESS" in os.environ:
        return
    import torch

    found = torch.cuda.device_count()
    if found < config.workers:
        raise BadInput(
            f"cluster.gpu: found {found} GPUs in this machine, expected one for each of "
            f"cluster.workers = {config.workers}"
        )


def _check_output(output: Path) -> None:
    _check_folder("--output", output)
    left = [name for name in LEFT if (output / name).exists()]
    if left and not (output / "summary.json").exists():
        raise BadInput(f"--output: found {output / left[0]}, which no run left, expected none")


def _check_folder(option: str, folder: Path) -> None:
    """Raises BadInput unless the folder is there, or can be made, and can be written to."""
    near = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not near.is_dir():
        raise BadInput(f"{option}: found the file {near}, expected a folder")
    if not os.access(near, os.W_OK | os.X_OK):
        raise BadInput(f"{option}: found {near}, where one may not write, expected a folder")


def plan(run: Run, source: Source) -> dict[str, str]:
    """Returns for each stage whether it would run or is cached; writes nothing of its own."""
    found = {}
    if (store.home() / "redun.db").exists() and not run.force:
        found = engine.plan(density(run.config, source))
    return {stage: "run" if found.get(stage, True) else "cached" for stage in STAGES}


def execute(run: Run, source: Source, console: Console) -> dict[str, Any]:
    """Runs what is not cached, and leaves the results in the output folder.

    Returns:
        The summary, as in ``summary.json``.
    """
    pipeline = key(run.config, source)
    name = f"run-{pipeline[:20]}"
    with _clean_home(), writing(log_file(run)):
        waiting = store.lock(name, waiting=lambda: _wait(console))
        with waiting, reaching(), ExitStack() as stack:
            tracked = Tracked(run, pipeline, stack)
            progress = stack.enter_context(Progress(console, run.config.train))
            stages = Engine(
                open_context=tracked.context,
                progress=progress,
                workers=run.config.cluster.workers,
                force=run.force,
            )
            outcome = stages.run(density(run.config, source))
            progress.started("track", "")
            summary = _publish(run, outcome, tracked)
            progress.finished("track")
            return summary


def log_file(run: Run) -> Path:
    """Returns the file that what happens is written to."""
    return store.home() / "logs" / f"{run.config.name}.log"


class Tracked:
    """The MLflow run of a pipeline, made when the first stage runs.

    Arguments:
        run: What the user asked for.
        key: The pipeline's key.
        stack: Ends the run.
    """

    def __init__(self, run: Run, key: str, stack: ExitStack) -> None:
        self.run, self.key, self.stack = run, key, stack
        self.made: StageRun | None = None

    def context(self) -> Context:
        """Makes the run; returns what the stages need of it."""
        tracker = self._connect()
        self.made = self._start(tracker)
        return Context(tracker, self.made.id, self.run.force)

    def found(self) -> str | None:
        """Returns the id of the run that an earlier, equal command made, if all is cached."""
        if self.made is not None:
            return None
        tracker = self._connect()
        run_id = tracker.finished()
        if run_id is None:
            self.made = self._start(tracker)
        return run_id

    def _connect(self) -> Tracker:
        tracker = connect(EXPERIMENT, self.key)
        tracker.reclaim()
        return tracker

    def _start(self, tracker: Tracker) -> StageRun:
        tags = {"ebflow.role": "pipeline", "mlflow.note.content": f"`{self.run.command}`"}
        run_id = tracker.start(self.run.config.name, tags)
        return self.stack.enter_context(tracker.run(run_id))


def _publish(run: Run, outcome: Outcome, tracked: Tracked) -> dict[str, Any]:
    artefacts: dict[str, Artefact] = dict(zip(STAGES, outcome.value, strict=True))
    run_id = tracked.found()
    made = tracked.made
    summary = _summary(run, artefacts, run_id or made.id)
    _write(run, artefacts, summary)
    if made is not None:
        _log(run, artefacts, made)
    stages = {stage: "ran" if outcome.ran[stage] else "cached" for stage in STAGES}
    return {**summary, "stages": stages}


def _summary(run: Run, artefacts: Mapping[str, Artefact], run_id: str) -> dict[str, Any]:
    numbers = json.loads((artefacts["report"].path / "numbers.json").read_text())
    output = run.output.absolute()
    return {
        **numbers,
        "name": run.config.name,
        "mlflow_run_id": run_id,
        "checkpoint": str(output / "checkpoint"),
        "report": str(output / "report.html"),
        "figures": str(output / "figures"),
        "verdict": json.loads((artefacts["train"].path / "training.json").read_text())["verdict"],
        "seeds": {"data": run.config.data.seed, "training": run.config.seed},
        "artefacts": {stage: str(made.path) for stage, made in artefacts.items()},
        "config": run.config.model_dump(mode="json"),
        "command": run.command,
    }


def _write(run: Run, artefacts: Mapping[str, Artefact], summary: Mapping[str, Any]) -> None:
    """Fills the output folder; each entry is whole or absent."""
    run.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=run.output) as name:
        draft = Path(name)
        shutil.copytree(artefacts["train"].path / "checkpoint", draft / "checkpoint")
        shutil.copytree(artefacts["report"].path / "figures", draft / "figures")
        shutil.copy(artefacts["report"].path / "report.html", draft)
        (draft / "config.yaml").write_text(dump(run.config))
        (draft / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        for entry in draft.iterdir():
            _replace(entry, run.output / entry.name)


def _replace(new: Path, old: Path) -> None:
    if old.is_dir():
        shutil.rmtree(old)
    new.replace(old)


def _log(run: Run, artefacts: Mapping[str, Artefact], made: StageRun) -> None:
    data, trained = artefacts["prepare"].path, artefacts["train"].path
    manifest = Manifest.load(data)
    made.log_params(run.config.model_dump())
    made.log_input(manifest, "training")
    told, _ = rows.read(trained / rows.FILE)
    made.log_rows([*rows.curve(told, "log"), *rows.curve(told, "validate")])
    made.log_metrics(json.loads((artefacts["report"].path / "numbers.json").read_text()))
    made.set_tags({f"ebflow.key.{stage}": found.key for stage, found in artefacts.items()})
    for name in ("summary.json", "report.html", "config.yaml"):
        made.log_artifacts(run.output / name)
    for name in ("figures", "checkpoint"):
        made.log_artifacts(run.output / name, name)
    made.log_model(run.output / "checkpoint", _examples(data, manifest))


def _examples(data: Path, manifest: Manifest) -> np.ndarray:
    """Returns a few rows of the test split, with shape (N, D)."""
    file = pq.ParquetFile(data / manifest.of("test")[0].file)
    batch = next(file.iter_batches(EXAMPLES, columns=["x"]))
    return np.stack(batch.column("x").to_numpy(zero_copy_only=False))


@contextmanager
def _clean_home() -> Iterator[None]:
    """Takes back a store that bad input made, as long as it holds no finished work."""
    fresh = not store.home().exists()
    try:
        yield
    except BadInput:
        if fresh and not (store.home() / "artefacts").exists():
            shutil.rmtree(store.home(), ignore_errors=True)
        raise


def _wait(console: Console) -> None:
    console.print("another process runs the same pipeline: waiting for it", highlight=False)
