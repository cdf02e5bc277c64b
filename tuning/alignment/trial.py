"""A trial of a regularised classifier: it reports from time to time, and rules may end it."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from ray import tune

from ebflow.alignment.training import Training
from ebflow.data.loader import Dataset
from ebflow.errors import NonFinite
from pipelines import store
from pipelines.gradient_alignment import fitting
from pipelines.gradient_alignment.config import ClassifierConfig
from pipelines.gradient_alignment.holdout import Held
from pipelines.training import metrics_log
from tuning.alignment.config import AlignmentSearch
from tuning.problem import Killed

REPORTS = 20
"""Reports of a trial at most."""


def train(
    search: AlignmentSearch, config: ClassifierConfig, inputs: Sequence[Path], folder: Path
) -> None:
    """Trains as :meth:`tuning.problem.Problem.train`; its steps are epochs.

    Reports all that ``Held`` measures on the validation rows. A trial is killed if its trace
    passed its floor, or its accuracy stayed behind plain training.
    """
    torch.set_num_threads(config.threads)
    dataset = Dataset(inputs[0])
    store.regain(folder / metrics_log.FILE)
    watch = Watch(search, config, dataset, *inputs[1:])
    fitted = fitting.fit(config, dataset, folder, watch=watch.measure, listener=watch.tell)
    if fitted.diverged:
        raise NonFinite(fitted.diagnosis)


class Watch:
    """Looks at a training, tells of it, and ends it where a rule says so.

    Arguments:
        search: The search.
        config: The training.
        dataset: Its data.
        reference: The folder of the reference.
        plain: That of plain training.
    """

    def __init__(
        self,
        search: AlignmentSearch,
        config: ClassifierConfig,
        dataset: Dataset,
        reference: Path,
        plain: Path,
    ) -> None:
        self.search, self.config, self.manifest = search, config, dataset.manifest
        self.held = Held(config, dataset, reference, "validation")
        self.every, self.plain = max(1, config.epochs // REPORTS), _accuracies(plain)
        self.found: dict[str, float] = {}

    def measure(self, training: Training) -> dict[str, float]:
        """Returns what ``Held`` measures, if it is time for a report."""
        self.found = {}
        if training.step % self.every and training.step < self.config.epochs:
            return {}
        self.found = self.held.measure(training.network)
        self.seconds = training.clock.total("step")
        return {f"val/{name}": value for name, value in self.found.items()}

    def tell(self, rows: list[metrics_log.Row]) -> None:
        """Reports the last of the rows if it was measured; raises ``Killed`` by a rule."""
        if not self.found or not rows or rows[-1]["kind"] != "validate":
            return
        epoch, share, metrics = (rows[-1][name] for name in ("step", "share", "metrics"))
        tune.report({**self.found, "step": epoch, "seconds": self.seconds, "share": share})
        diagnosis = fitting.collapse(self.config, self.manifest, metrics)
        judge(self.search, share, diagnosis, metrics["val/accuracy"], self.plain[epoch - 1])


def _accuracies(plain: Path) -> list[float]:
    """Returns the validation accuracies of the plain training, by epoch."""
    state = json.loads((plain / fitting.STATE).read_text())
    return [epoch["val/accuracy"] for epoch in state["epochs"]]


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
