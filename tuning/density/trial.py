"""A trial of a flow: a training that reports after every validation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from ebflow.data.loader import Dataset
from pipelines import store
from pipelines.config import Training
from pipelines.training import metrics_log
from pipelines.training.loop import fit
from pipelines.training.preprocessing import CHAIN, fitted


def train(config: Training, data: Path, folder: Path) -> None:
    """Trains as :meth:`tuning.problem.Problem.train`; of goals ``nll``, the least so far, in nats.

    One worker trains in this process; several are launched by Ray Train.
    """
    chain, here = folder / CHAIN, config.cluster.workers == 1
    fitted(config.chain, Dataset(data)).save(chain)
    store.keep(chain)
    store.regain(folder / metrics_log.FILE)
    listener = Relay(tune.report if here else _handed_on())
    listener(metrics_log.read(folder / metrics_log.FILE)[0])
    fit(config.once, data, chain, folder, here=here, listener=listener)


def _handed_on() -> Callable[[dict[str, Any]], None]:
    """Returns what reports to Tune from Ray Train's controller."""
    callback = TuneReportCallback()
    return lambda standing: callback.after_report(None, [standing], None)


class Relay:
    """Reports to Tune what a training tells of its validations.

    Arguments:
        report: Reports ``nll``, ``step``, ``seconds`` and ``share``.
    """

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        self.report, self.nll = report, float("inf")

    def __call__(self, rows: list[metrics_log.Row]) -> None:
        """Reports if there is a validation."""
        validations = [row for row in rows if row["kind"] == "validate"]
        if not validations:
            return
        self.nll = min(self.nll, *(row["metrics"]["val/nll"] for row in validations))
        last = validations[-1]
        self.report(
            {
                "nll": self.nll,
                "step": last["step"],
                "seconds": last["metrics"]["time/train_s"],
                "share": last["share"],
            }
        )
