"""Workers of a training that Ray Train launches, and what it tells of them."""

import math
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch

from ebflow.errors import BadInput, NonFinite
from pipelines import store
from pipelines.cluster.connection import largest_node
from pipelines.cluster.environment import embedded
from pipelines.cluster.waiting import waiting
from pipelines.config import Training
from pipelines.errors import in_one_line
from pipelines.tracking import metrics_log
from pipelines.training.loop import Listener, WorkerContext, note, train
from pipelines.training.rendezvous import FileRendezvous
from pipelines.training.watchdog import hung

HEALTH_TIMEOUT = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
PLACE_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
PLACE_S = 10 * 365 * 86_400
"""How long workers wait for their places: a node that boots slowly is no failed start, and a place
in Ray's queue is not given up."""

NODE_LENGTH = 8
"""Digits of a node's id by which ``ray list nodes`` tells it from others."""

START_LIMIT = 5
"""Starts of workers that may fail before the training does."""


def launched() -> WorkerContext:
    """Returns the place of a worker that Ray Train launched, which waits for all to report."""
    context = ray.train.get_context()
    return WorkerContext(
        lambda rows: ray.train.report({"rows": rows}),
        (context.get_world_rank(), context.get_world_size()),
        context.get_local_rank(),
        ray.train.torch.get_device(),
        _taken,
    )


def _taken() -> frozenset[str]:
    info = ray.train.get_preemption_info()
    return frozenset(info.preempted_node_ids if info else ())


def worker(job: dict[str, Any]) -> dict[str, Any]:
    """Trains; returns how it ended, or ``error``: what no restart would mend.

    Raises:
        BadInput: One of several may be alone in what it sees of store and data. The others wait
            for it, until Ray ends them all because it failed.
    """
    here = {name: str(store.present(Path(job[name]))) for name in ("data", "start")}
    place = launched()
    try:
        with _watching(job["run_id"], place):
            return train({**job, **here}, place)
    except NonFinite as error:  # alike on all
        return {"error": error}
    except BadInput as error:
        if place.shard[1] > 1:
            raise
        return {"error": error}


def _watching(run_id: str, place: WorkerContext) -> AbstractContextManager[None]:
    """Returns what logs the use of this node, once a node; on this machine alone a stage does."""
    if embedded() or not run_id or place.local_rank:
        return nullcontext()
    from mlflow import MlflowClient

    from pipelines.tracking.backend import uri
    from pipelines.tracking.run import StageRun

    node = ray.get_runtime_context().get_node_id()
    return StageRun(MlflowClient(uri()), run_id).watching(node[:NODE_LENGTH])


class Reports(ray.train.UserCallback):
    """Hands on what workers report, and notes their failures; runs in Ray Train's controller.

    Arguments:
        work: Folder of the file of rows, and of what watchdogs leave.
        listener: Is told every report.
    """

    def __init__(self, work: Path, listener: Listener) -> None:
        self.work, self.listener = work, listener

    def after_exception(
        self, run_context: object, worker_exceptions: dict[int, Exception]
    ) -> None:
        """Appends what befell the workers that failed together, as one row."""
        failed = (
            f"worker {rank}: {hung(self.work, rank) or in_one_line(error)}"
            for rank, error in sorted(worker_exceptions.items())
        )
        note(self.work, metrics_log.FAILURE, "; ".join(failed))

    def after_report(
        self, run_context: object, metrics: list[dict[str, Any]], checkpoint: object
    ) -> None:
        """Tells what the first worker reported; all report alike."""
        self.listener(metrics[0]["rows"])


def _scaling(config: Training) -> ray.train.ScalingConfig:
    """Returns what Ray reserves for the workers; on this machine alone, no more than it has."""
    workers, needs = config.cluster.workers, config.of_a_worker
    if embedded():
        needs.pop("memory", None)
        share = math.floor(1e4 * largest_node() / workers) / 1e4
        needs["CPU"] = min(needs["CPU"], share)
    return ray.train.ScalingConfig(
        num_workers=workers, use_gpu=config.cluster.gpu, resources_per_worker=needs
    )


def launch(config: Training, job: dict[str, Any], listener: Listener) -> dict[str, Any]:
    """Trains by Ray Train, in processes of its own.

    Arguments:
        config: What to train.
        job: As workers are told (:func:`pipelines.training.loop.train`).
        listener: Is told every report.

    Returns:
        ``error``, or what the loop returns.
    """
    work = Path(job["work"])
    # What Ray itself can see: a process that answers no more.
    os.environ[HEALTH_TIMEOUT] = str(config.cluster.patience)
    os.environ[PLACE_TIMEOUT] = str(PLACE_S)
    if what := waiting("the training", config.needs):
        note(work, metrics_log.WAITING, what)
    trainer = ray.train.torch.TorchTrainer(
        worker,
        train_loop_config=job,
        torch_config=FileRendezvous(folder=str(work)) if embedded() else None,
        scaling_config=_scaling(config),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=str(work),
            failure_config=ray.train.FailureConfig(
                max_failures=config.cluster.max_failures, controller_failure_limit=START_LIMIT
            ),
            callbacks=[Reports(work, listener)],
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )
    return trainer.fit().return_value
