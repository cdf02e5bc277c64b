"""From prepared data to a flow of the rows of a class, smoothed by noise: a reference."""

__all__ = ["flow"]

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from ebflow.alignment.rows import smoothed
from ebflow.checkpoint import check, resume, save_training
from ebflow.data.loader import Dataset
from ebflow.train import Trainer
from pipelines import store
from pipelines.gradient_alignment.config import FlowConfig
from pipelines.tracking import StageRun
from pipelines.training.loop import build
from pipelines.training.metrics_log import Row
from pipelines.training.preprocessing import fitted

BEST, LAST = "best", "last"
SAVE_S = 20.0
"""Seconds between checkpoints to go on from."""


def flow(config: FlowConfig, data: Path, *, output: Path, work: Path, run: StageRun) -> None:
    """Writes ``checkpoint/``, the best by validation; trained as the density pipeline trains.

    Interrupted, it goes on from the last checkpoint.
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
        run.log_rows(_rows(trainer, work))
    shutil.copytree(work / BEST, output / "checkpoint")
    check(output / "checkpoint")
    run.set_tags({"ebflow.verdict": trainer.verdict})


def _rows(trainer: Trainer, work: Path) -> Iterator[Row]:
    """Trains; keeps checkpoints, and yields what is logged."""
    saved = time.monotonic()
    for event in trainer.run():
        if event.best:
            save_training(trainer, work / BEST)
            store.keep(work / BEST)
        if time.monotonic() - saved > SAVE_S:
            save_training(trainer, work / LAST)
            store.keep(work / LAST)
            saved = time.monotonic()
        yield {"step": event.step, "time": time.time(), "metrics": event.metrics}
