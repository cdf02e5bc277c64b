"""From prepared data with classes to a trained classifier."""

__all__ = ["classify"]

import time
from pathlib import Path

import torch

from ebflow.alignment.training import Training
from ebflow.checkpoint import Checkpoint, read, write
from ebflow.data.loader import Dataset
from ebflow.resume import flatten, unflatten
from pipelines.alignment import fitting
from pipelines.alignment.config import ClassifierConfig
from pipelines.alignment.fitting import Fitted
from pipelines.tracking import StageRun

SAVE_S = 20.0
"""Seconds between checkpoints."""


def classify(
    config: ClassifierConfig, data: Path, *, output: Path, work: Path, run: StageRun
) -> None:
    """Writes the weights and what the training told; goes on from the last checkpoint."""
    torch.set_num_threads(config.threads)
    run.log_params(config.model_dump())
    dataset = Dataset(data)
    run.log_input(dataset.manifest, "training")
    keeper = _Keeper(work / "checkpoint")
    device = "cuda" if config.gpu else "cpu"
    fitted = fitting.fit(config, dataset, device=device, resume=keeper.resume, tell=keeper.tell)
    fitting.save(output, fitted)
    now = time.time()
    run.log_rows(
        {"step": epoch, "time": now, "metrics": metrics}
        for epoch, metrics in enumerate(fitted.epochs, 1)
    )
    run.set_tags({"ebflow.verdict": fitted.diagnosis or "ended"})


class _Keeper:
    """Keeps a training's state in a folder from time to time.

    Arguments:
        folder: The checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.saved = folder, time.monotonic()

    def resume(self, training: Training, fitted: Fitted) -> None:
        """Gives a training what another one left, if one did."""
        if not self.folder.exists():
            return
        found = read(self.folder)
        groups = unflatten(found.optimizer, found.state["optimizer"])
        training.resume(found.state["epoch"], found.model, groups)
        fitted.epochs, fitted.diagnosis = found.state["epochs"], found.state["diagnosis"]

    def tell(self, training: Training, fitted: Fitted) -> None:
        """Writes a checkpoint when it is time."""
        if time.monotonic() - self.saved < SAVE_S:
            return
        tensors, groups = flatten(training.state())
        state = {"flow": {}, "epoch": training.epoch, "optimizer": groups,
                 "epochs": fitted.epochs, "diagnosis": fitted.diagnosis}  # fmt: skip
        write(self.folder, Checkpoint(training.network.state_dict(), {}, tensors, state))
        self.saved = time.monotonic()
