"""A trial of a flow: a training that reports after every validation."""

__all__ = ["train"]

import time
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from ebflow.checkpoint import resume, save_training
from ebflow.data.loader import Dataset
from ebflow.train import Trainer
from pipelines import store
from pipelines.config import Training
from pipelines.store import writer
from pipelines.training import metrics_log
from pipelines.training.loop import SAVE_S, build, fit, row
from pipelines.training.preprocessing import CHAIN, fitted
from tuning.problem import Given


def train(config: Training, given: Given) -> None:
    """Trains; what a killed search left in the trial's folder it goes on from.

    One worker trains in this process; several are launched by Ray Train. Reports ``nll`` (the
    least validation NLL so far, nats), ``step``, ``seconds`` (of training) and ``share`` (of the
    training that is done).

    Raises:
        NonFinite: If a loss or a likelihood was not finite.
    """
    start = _launched if config.cluster.workers > 1 else _here
    start(config.once, given.inputs[0], given.folder)


def _here(config: Training, data: Path, folder: Path) -> None:
    torch.set_num_threads(config.train.threads)
    dataset = Dataset(data)
    device = "cuda" if config.cluster.gpu else "cpu"
    trainer = build(config, dataset, fitted(config.front, dataset), device=device)
    checkpoint = folder / "checkpoint"
    store.regain(checkpoint)
    if checkpoint.exists():
        resume(trainer, checkpoint)
        writer.append(folder / metrics_log.FILE, [row(trainer, metrics_log.RESUMED, {})])
    saved = time.monotonic()
    for event in trainer.run():
        told = row(trainer, event.kind, event.metrics, event.note)
        writer.append(folder / metrics_log.FILE, [told])
        if event.kind == "validate":
            tune.report(_standing(trainer))
            if time.monotonic() - saved > SAVE_S:
                save_training(trainer, checkpoint)
                store.keep(checkpoint)
                saved = time.monotonic()


def _standing(trainer: Trainer) -> dict[str, Any]:
    return {
        "nll": trainer.state.best.nll,
        "step": trainer.step,
        "seconds": trainer.seconds,
        "share": 1.0 if trainer.verdict else trainer.progress,
    }


def _launched(config: Training, data: Path, folder: Path) -> None:
    front = folder / CHAIN
    fitted(config.front, Dataset(data)).save(front)
    store.keep(front)
    result = fit(config, data, front, folder, callbacks=[Relay()])
    if "error" in result.return_value:
        raise result.return_value["error"]


class Relay(TuneReportCallback):
    """Hands what Ray Train's workers tell of a validation on to Tune."""

    def __init__(self) -> None:
        super().__init__()
        self.nll = float("inf")

    def after_report(
        self,
        run_context: Any,  # noqa: ANN401
        metrics: list[dict[str, Any]],
        checkpoint: ray.train.Checkpoint | None,
    ) -> None:
        """Hands a report on if it has a validation."""
        told = [row for row in metrics[0]["rows"] if row["kind"] == "validate"]
        if not told:
            return
        self.nll = min(self.nll, *(row["metrics"]["val/nll"] for row in told))
        last = told[-1]
        standing = {
            "nll": self.nll,
            "step": last["step"],
            "seconds": last["metrics"]["time/train_s"],
            "share": last["share"],
        }
        super().after_report(run_context, [standing], None)
