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
from pipelines import rows
from pipelines.alignment import fitting
from pipelines.alignment.config import ClassifierConfig
from pipelines.alignment.fitting import Fitted
from pipelines.alignment.held import Held
from pipelines.alignment.trial import trial
from tuning.alignment.config import AlignmentSearch
from tuning.problem import Given, Killed

REPORTS = 20
"""Reports of a trial at most."""


def train(config: ClassifierConfig, given: Given) -> None:
    """Trains from the beginning, as a classifier of a search is one of many that are small.

    Reports ``A1`` and ``accuracy`` of the validation rows, ``step`` (epochs), ``seconds`` and
    ``share``.

    Raises:
        Killed: If the trace passed its floor, or the accuracy stayed behind plain training.
        NonFinite: If a loss was not finite.
    """
    torch.set_num_threads(config.threads)
    data, reference, _ = given.inputs
    if not trial(config, data, reference, tell=Watch(config, given).tell):
        raise NonFinite(
            "the loss was not finite: lower the regulariser's weight, or clip gradients"
        )


class Watch:
    """Looks at a training, tells of it, and ends it where a rule says so.

    Arguments:
        config: The training.
        given: The search, and what it is compared with.
    """

    def __init__(self, config: ClassifierConfig, given: Given) -> None:
        data, reference, plain = given.inputs
        device = "cuda" if config.gpu else "cpu"
        self.search, self.file = given.search, given.folder / rows.FILE
        self.held = Held(config, Dataset(data), reference, "validation", device)
        self.every, self.epochs = max(1, config.epochs // REPORTS), config.epochs
        self.plain, self.began = _accuracies(plain), time.monotonic()

    def tell(self, training: Training, fitted: Fitted) -> None:
        """Reports, if it is time; raises ``Killed`` by a rule."""
        epoch = training.epoch
        if epoch % self.every and epoch < self.epochs:
            return
        found, told = self.held.measure(training.network), fitted.epochs[-1]
        metrics = told | {f"val/{name}": value for name, value in found.items()}
        share = epoch / self.epochs
        row = {"kind": "validate", "step": epoch, "share": share, "note": ""}
        rows.append(self.file, [{**row, "time": time.time(), "metrics": metrics}])
        seconds = time.monotonic() - self.began
        tune.report({**found, "step": epoch, "seconds": seconds, "share": share})
        judge(self.search, share, fitted.diagnosis, told["val/accuracy"], self.plain[epoch - 1])


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
