"""From prepared data to a flow of the rows of a class, smoothed by noise: a reference."""

__all__ = ["flow"]

import shutil
import tempfile
import time
from pathlib import Path

import torch

from ebflow.alignment.rows import smoothed
from ebflow.checkpoint import check, resume, save_training
from ebflow.data.loader import Dataset
from ebflow.train import Trainer
from pipelines import store
from pipelines.gradient_alignment.config import FlowConfig
from pipelines.store import writer
from pipelines.tracking import Follower, StageRun
from pipelines.training import metrics_log
from pipelines.training.loop import build, row
from pipelines.training.preprocessing import fitted

BEST, LAST = "best", "last"
SAVE_S = 20.0
"""Seconds between checkpoints to go on from."""


def flow(config: FlowConfig, data: Path, *, output: Path, work: Path, run: StageRun) -> None:
    """Writes ``checkpoint/``, the best by validation; trained as the density pipeline trains.

    Interrupted, it goes on from the last checkpoint, and from what was logged.
    """
    training = config.training
    torch.set_num_threads(training.train.threads)
    run.log_params(config.model_dump())
    with tempfile.TemporaryDirectory(dir=work) as folder:
        manifest = smoothed(
            Dataset(data), Path(folder), noise=config.noise, draws=config.draws,
            seed=training.seed, label=config.label,
        )  # fmt: skip
        run.log_input(manifest, "training")
        dataset = Dataset(folder)
        chain = fitted(training.front, dataset)
        trainer = build(training, dataset, chain, device=config.device)
        for name in (BEST, LAST):
            store.regain(work / name)
        if (work / LAST).exists():
            resume(trainer, work / LAST, best=work / BEST)
        rows = work / metrics_log.FILE
        store.regain(rows)
        with Follower(rows, run):
            _train(trainer, work, rows)
    shutil.copytree(work / BEST, output / "checkpoint")
    check(output / "checkpoint")
    run.set_tags({"ebflow.verdict": trainer.verdict})


def _train(trainer: Trainer, work: Path, rows: Path) -> None:
    """Trains; keeps checkpoints, and what is logged before them."""
    saved = time.monotonic()
    for event in trainer.run():
        writer.append(rows, [row(trainer, event.kind, event.metrics, event.note)])
        if event.best:
            save_training(trainer, work / BEST)
            store.keep(work / BEST)
        if time.monotonic() - saved > SAVE_S:
            writer.keep(rows)
            save_training(trainer, work / LAST)
            store.keep(work / LAST)
            saved = time.monotonic()
