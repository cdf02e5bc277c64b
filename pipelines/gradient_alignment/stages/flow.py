"""From prepared data to a flow of the rows of a class, smoothed by noise: a reference."""

import shutil
from pathlib import Path

from pipelines.data.dataset import Dataset
from pipelines.gradient_alignment.config import FlowConfig
from pipelines.gradient_alignment.unit_rows import smoothed
from pipelines.tracking.run import StageRun
from pipelines.training.loop import export_checkpoints, fit
from pipelines.training.preprocessing import CHAIN, fitted


def flow(config: FlowConfig, data: Path, whole: Path | None = None, *, run: StageRun) -> None:
    """Writes ``checkpoint/``, the best by validation; trained as the density pipeline trains.

    Interrupted, it goes on from the last checkpoint, and from what was logged.

    Arguments:
        config: The rows, their noise and the training.
        data: The prepared data.
        whole: What the stage left of all rows, whose flow is trained on; None: a new flow.
    """
    training, smooth = config.training, run.work / "data"
    run.log_params(config.model_dump())
    shutil.rmtree(smooth, ignore_errors=True)
    smooth.mkdir()
    manifest = smoothed(
        Dataset(data), smooth, noise=config.noise, draws=config.draws,
        seed=training.seed, label=config.label,
    )  # fmt: skip
    run.log_input(manifest, "training")
    if whole is None:
        fitted(training.chain, Dataset(smooth)).save(run.work / CHAIN)
    start = run.work / CHAIN if whole is None else whole / "checkpoint"
    summary = fit(training, smooth, start, run.work, run.reporter, here=True)
    export_checkpoints(run.work, {"checkpoint": summary["best_step"]}, run.output)
    run.set_tags({"ebflow.verdict": summary["verdict"]})
