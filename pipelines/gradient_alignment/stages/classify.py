"""From prepared data with classes to a trained classifier."""

__all__ = ["classify"]

import time
from pathlib import Path

import torch

from ebflow.data.loader import Dataset
from pipelines.gradient_alignment import fitting
from pipelines.gradient_alignment.checkpointer import Keeper
from pipelines.gradient_alignment.config import ClassifierConfig
from pipelines.tracking import StageRun


def classify(
    config: ClassifierConfig, data: Path, *, output: Path, work: Path, run: StageRun
) -> None:
    """Writes the weights and what the training told; goes on from the last checkpoint."""
    torch.set_num_threads(config.threads)
    run.log_params(config.model_dump())
    dataset = Dataset(data)
    run.log_input(dataset.manifest, "training")
    keeper = Keeper(work / "checkpoint")
    fitted = fitting.fit(config, dataset, resume=keeper.resume, tell=keeper.tell)
    fitting.save(output, fitted)
    now = time.time()
    run.log_rows(
        {"step": epoch, "time": now, "metrics": metrics}
        for epoch, metrics in enumerate(fitted.epochs, 1)
    )
    run.set_tags({"ebflow.verdict": fitted.diagnosis or "ended"})
