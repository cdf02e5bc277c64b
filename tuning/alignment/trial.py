"""A trial of a regularised classifier: it reports from time to time, and rules may end it."""

__all__ = ["train"]

import json
import time
from pathlib import Path

import torch
from ray import tune

from ebflow.alignment.training import Training
from ebflow.data.loader import Dataset
from ebflow.errors import NonFinite
from pipelines.gradient_alignment import fitting
from pipelines.gradient_alignment.checkpointer import Keeper
from pipelines.gradient_alignment.config import ClassifierConfig
from pipelines.gradient_alignment.fitting import Fitted
from pipelines.gradient_alignment.holdout import Held
from pipelines.store import writer
from pipelines.training import metrics_log
from tuning.alignment.config import AlignmentSearch
from tuning.problem import Given, Killed

REPORTS = 20
"""Reports of a trial at most."""


def train(config: ClassifierConfig, given: Given) -> None:
    """Trains; what a killed search left in the trial's folder it goes on from.

    Reports ``A3`` and ``accuracy`` of the validation rows, and what else ``Held`` measures there,
    ``step`` (epochs), ``seconds`` (of training) and ``share``.

    Raises:
        Killed: If the trace passed its floor, or the accuracy stayed behind plain training.
        NonFinite: If a loss was not finite.
    """
    torch.set_num_threads(config.threads)
    dataset = Dataset(given.inputs[0])
    watch = Watch(config, dataset, given)
    fitted = fitting.fit(config, dataset, resume=watch.resume, tell=watch.tell)
    if fitted.diverged:
        raise NonFinite(fitted.diagnosis)


class Watch:
    """Looks at a training, tells of it, and ends it where a rule says so.

    Arguments:
        config: The training.
        dataset: Its data.
        given: The search, and what it is compared with.
    """

    def __init__(self, config: ClassifierConfig, dataset: Dataset, given: Given) -> None:
        _, reference, plain = given.inputs
        self.search, self.file = given.search, given.folder / metrics_log.FILE
        self.held = Held(config, dataset, reference, "validation")
        self.every, self.epochs = max(1, config.epochs // REPORTS), config.epochs
        self.plain, self.keeper = _accuracies(plain), Keeper(given.folder / "checkpoint")

    def resume(self, training: Training, fitted: Fitted) -> None:
        """Goes on from the trial's checkpoint, if there is one."""
        self.keeper.resume(training, fitted)
        if training.epoch:
            self._append(metrics_log.RESUMED, training.epoch, {})

    def tell(self, training: Training, fitted: Fitted) -> None:
        """Reports and keeps what there is, if it is time; raises ``Killed`` by a rule."""
        if training.epoch % self.every == 0 or training.epoch == self.epochs:
            self._report(training, fitted)
        self.keeper.tell(training, fitted)

    def _report(self, training: Training, fitted: Fitted) -> None:
        epoch = training.epoch
        found, told = self.held.measure(training.network), fitted.epochs[-1]
        metrics = told | {f"val/{name}": value for name, value in found.items()}
        share, seconds = epoch / self.epochs, self.keeper.seconds
        self._append("validate", epoch, metrics)
        tune.report({**found, "step": epoch, "seconds": seconds, "share": share})
        judge(self.search, share, fitted.diagnosis, told["val/accuracy"], self.plain[epoch - 1])

    def _append(self, kind: str, epoch: int, metrics: dict[str, float]) -> None:
        told = {"kind": kind, "step": epoch, "share": epoch / self.epochs, "note": ""}
        writer.append(self.file, [{**told, "time": time.time(), "metrics": metrics}])


def _accuracies(plain: Path) -> list[float]:
    """Returns the validation accuracies of the plain training, by epoch."""
    told = json.loads((plain / fitting.STATE).read_text())
    return [epoch["val/accuracy"] for epoch in told["epochs"]]


def judge(
    search: AlignmentSearch, share: float, diagnosis: str, accuracy: float, plain: float
) -> None:
    """Ends a training whose trace passed its floor, or that costs too much accuracy.

    Arguments:
        search: Its grace and the accuracy that may be lost are used.
        share: Of the training that is done.
        diagnosis: Of the training so far.
        accuracy: On the validation rows.
        plain: That of plain cross-entropy after as many epochs.

    Raises:
        Killed: With the rule's line.
    """
    if diagnosis:
        raise Killed(diagnosis)
    if share >= search.grace and plain - accuracy > search.drop:
        raise Killed(
            f"accuracy {accuracy:.3f}, more than {search.drop:g} below the {plain:.3f} of plain "
            f"cross-entropy after as many epochs"
        )
