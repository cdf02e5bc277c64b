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
from pipelines.training.loop import Listener, fit
from pipelines.training.preprocessing import CHAIN, fitted


def train(config: Training, data: Path, folder: Path) -> None:
    """Trains as :meth:`tuning.problem.Problem.train`; of goals ``nll``, the least so far, in nats.

    One worker trains in this process; several are launched by Ray Train.
    """
    chain, here = folder / CHAIN, config.cluster.workers == 1
    fitted(config.chain, Dataset(data)).save(chain)
    store.keep(chain)
    store.regain(folder / metrics_log.FILE)
    listener = relay(tune.report if here else _handed_on())
    listener(metrics_log.read(folder / metrics_log.FILE)[0])
    fit(config.once, data, chain, folder, here=here, listener=listener)


def _handed_on() -> Callable[[dict[str, Any]], None]:
    """Returns what reports to Tune from Ray Train's controller."""
    callback = TuneReportCallback()
    return lambda standing: callback.after_report(None, [standing], None)


def relay(report: Callable[[dict[str, Any]], None]) -> Listener:
    """Returns what reports to Tune how a training stands after a validation.

    Arguments:
        report: Reports ``nll``, ``step``, ``seconds`` and ``share``.
    """
    known = [float("inf")]

    def listener(rows: list[metrics_log.Row]) -> None:
        validations = [row for row in rows if row["kind"] == "validate"]
        if not validations:
            return
        known.extend(row["metrics"]["val/nll"] for row in validations)
        last, seconds = validations[-1], validations[-1]["metrics"]["time/train_s"]
        standing = {"step": last["step"], "seconds": seconds, "share": last["share"]}
        report({"nll": min(known), **standing})

    return listener
