"""A classifier's training, kept in a folder from time to time, and gone on with from there."""

__all__ = ["Keeper"]

import time
from pathlib import Path

from ebflow.alignment.training import Training
from ebflow.checkpoint import Checkpoint, flatten, read, unflatten, write
from pipelines import store
from pipelines.gradient_alignment.fitting import Fitted

SAVE_S = 20.0
"""Seconds between checkpoints."""


class Keeper:
    """Keeps the state of a training: a training that goes on from it is the uninterrupted one.

    Arguments:
        folder: The checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.began = self.saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the training began, less those in which it was not running."""
        return time.monotonic() - self.began

    def resume(self, training: Training, fitted: Fitted) -> None:
        """Gives a training what another one left, if one did.

        Raises:
            BadInput: If that is damaged.
        """
        store.regain(self.folder)
        if not self.folder.exists():
            return
        found = read(self.folder)
        groups = unflatten(found.optimizer, found.state["optimizer"])
        training.resume(found.state["epoch"], found.model, groups)
        fitted.epochs, fitted.diagnosis = found.state["epochs"], found.state["diagnosis"]
        self.began -= found.state["seconds"]

    def tell(self, training: Training, fitted: Fitted) -> None:
        """Writes a checkpoint when it is time; call it after every epoch."""
        if time.monotonic() - self.saved >= SAVE_S:
            self.save(training, fitted)

    def save(self, training: Training, fitted: Fitted) -> None:
        """Writes a checkpoint."""
        tensors, groups = flatten(training.state())
        state = {"flow": {}, "epoch": training.epoch, "optimizer": groups,
                 "epochs": fitted.epochs, "diagnosis": fitted.diagnosis,
                 "seconds": self.seconds}  # fmt: skip
        write(self.folder, Checkpoint(training.network.state_dict(), state, optimizer=tensors))
        store.keep(self.folder)
        self.saved = time.monotonic()
