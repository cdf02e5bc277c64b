"""The loop around a trainer: checkpoints, what is told, a watchdog; here or in Ray's workers."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ebflow.checkpoint import check, load
from ebflow.history import Event
from ebflow.preprocessing import Preprocessing
from pipelines import store
from pipelines.cluster import store_writer
from pipelines.cluster.connection import launched
from pipelines.cluster.environment import embedded
from pipelines.config import ClusterConfig, Training
from pipelines.data.dataset import Dataset
from pipelines.tracking import metrics_log
from pipelines.training.interruption import defer_sigint
from pipelines.training.resumable import Checkpoints, ResumableTraining, resume
from pipelines.training.sharding import shard_weights
from pipelines.training.trainers import build
from pipelines.training.watchdog import Watchdog, hung

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints below that of the training."""

REPORT_S = 1.0
SAVE_S = 20.0

Listener = Callable[[list[metrics_log.Row]], None]
"""Is told rows."""


@dataclass(frozen=True)
class WorkerContext:
    """Where a worker stands among the others, and whom it tells: alone in this process.

    Arguments:
        report: Tells rows; all workers do so alike.
        shard: Its rank, and how many there are.
        local_rank: Its rank on its node.
        device: Its GPU, if it has one.
        taken: Returns the nodes that are told to go.
    """

    report: Listener = lambda rows: None
    shard: tuple[int, int] = (0, 1)
    local_rank: int = 0
    device: torch.device = torch.device("cuda", 0)
    taken: Callable[[], frozenset[str]] = frozenset


def fit(
    config: Training,
    data: Path,
    start: Path,
    work: Path,
    *,
    here: bool | None = None,
    run_id: str = "",
    listener: Listener = lambda rows: None,
) -> dict[str, Any]:
    """Trains; goes on from what an earlier call left in ``work``.

    Arguments:
        config: What to train.
        data: The prepared folder.
        start: The file of the fitted chain; or the folder of a checkpoint, whose flow is trained
            on.
        work: Where checkpoints and rows go.
        here: Whether a lone worker trains in this process; None: as ``launched`` has it.
        run_id: The MLflow run in which workers on a cluster log the use of their nodes.
        listener: Is told every report.

    Returns:
        What :meth:`Reporter.finish` tells, and ``began``.

    Raises:
        BadInput: If a worker does not see the store, or what is to be read there.
        NonFinite: If a loss or likelihood was not finite, and the training was not to be tried
            again, or had no validation before.
    """
    here = not launched(config.cluster) if here is None else here
    job = {"config": config.model_dump(mode="json"), "store": store.identity(), "run_id": run_id}
    job |= {"data": str(data), "start": str(start), "work": str(work)}
    if here:
        return train(job, WorkerContext(listener))
    from pipelines.training.launch import launch

    result = launch(config, job, listener)
    if "error" in result:
        raise result["error"]
    return result


def export_checkpoints(work: Path, steps: Mapping[str, int], output: Path) -> None:
    """Copies checkpoints of a training by the names that they get there.

    Raises:
        BadInput: If one has been damaged since it was written.
    """
    store.download_entries(work / CHECKPOINTS)
    for name, step in steps.items():
        shutil.copytree(Checkpoints(work / CHECKPOINTS).path(step), output / name)
        check(output / name)


def train(job: dict[str, Any], place: WorkerContext) -> dict[str, Any]:
    """Trains a flow as one worker; returns as :func:`run_with_checkpoints`.

    Arguments:
        job: ``config`` (fields of :class:`Training`), ``data`` (the prepared folder), ``start``
            (as of :func:`fit`), ``work`` (where checkpoints are) and ``store`` (the id of the
            store that all of them lie in).
        place: Where the worker stands.
    """
    if not embedded():
        store.expect(job["store"])
    config = Training.model_validate(job["config"])
    torch.set_num_threads(config.train.threads)
    data, start, work = (Path(job[name]) for name in ("data", "start", "work"))

    def made() -> ResumableTraining:
        return build(
            config,
            Dataset(data),
            load(start) if start.is_dir() else Preprocessing.load(start),
            device=_device(config.cluster, place),
            shard=place.shard,
            wrap=_wrap(config.cluster),
        )

    return run_with_checkpoints(made, work, place, config.cluster.patience)


def run_with_checkpoints(
    made: Callable[[], ResumableTraining], work: Path, place: WorkerContext, patience: float
) -> dict[str, Any]:
    """Trains, from the last sound checkpoint on if there is one.

    Arguments:
        made: Makes the training.
        work: Where checkpoints and rows go.
        place: Where the worker stands.
        patience: Seconds without an event after which the process is ended.

    Returns:
        What :meth:`Reporter.finish` tells, and ``began``.
    """
    work.mkdir(parents=True, exist_ok=True)
    if place.shard[0] == 0 and (what := hung(work, 0)):
        note(work, metrics_log.FAILURE, f"worker 0: {what}")
    with Watchdog(work, place.shard[0], patience) as watchdog:
        reporter = _resumed(made(), work, place)
        ended = {"began": time.time(), **_run(reporter, watchdog)}
    if place.local_rank == 0:
        store.evict(work / CHECKPOINTS)
    return ended


def _device(config: ClusterConfig, place: WorkerContext) -> torch.device:
    if not config.gpu:
        return torch.device("cpu")
    torch.cuda.set_device(place.device)
    return place.device


def _run(reporter: "Reporter", watchdog: Watchdog) -> dict[str, Any]:
    """Trains to the end; a lone worker that is interrupted saves a checkpoint first."""
    trainer = reporter.trainer
    with defer_sigint() as interrupted:
        if reporter.lone:
            trainer.between = partial(_heed, interrupted, reporter)
        for event in trainer.run():
            reporter.tell(event)
            watchdog.feed()
        return reporter.finish()


def _heed(interrupted: Callable[[], bool], reporter: "Reporter") -> None:
    if interrupted():
        reporter.save()
        raise KeyboardInterrupt


def _wrap(config: ClusterConfig) -> Callable[[nn.Module], nn.Module]:
    if config.workers == 1:
        return lambda module: module
    if config.split:
        return shard_weights
    return partial(nn.parallel.DistributedDataParallel, broadcast_buffers=False)


def _resumed(trainer: ResumableTraining, work: Path, place: WorkerContext) -> "Reporter":
    """Lets a trainer go on from the newest sound checkpoint, which rank 0 names for all."""
    checkpoints = Checkpoints(work / CHECKPOINTS)
    if place.local_rank == 0:
        store.download_entries(checkpoints.folder)
    trainer.wait()
    found, why = checkpoints.newest() if trainer.shard[0] == 0 else (None, "")
    step = int(trainer.agreed(-1 if found is None else found))
    if step >= 0:
        resume(trainer, checkpoints.path(step), best=checkpoints.best(step))
        why = why or f"goes on from step {step}"
    return Reporter(trainer, work, place, why)


def note(work: Path, kind: str, text: str) -> None:
    """Appends a row that has no numbers, where the training is now."""
    last = next(reversed(metrics_log.read(work / metrics_log.FILE)[0]), {"step": 0, "share": 0.0})
    found = metrics_log.row(kind, last["step"], last["share"], text, text=text)
    store_writer.append(work / metrics_log.FILE, [found])


def row(trainer: ResumableTraining, event: Event) -> metrics_log.Row:
    """Returns what a trainer told just now, as a row of its file."""
    share = 1.0 if trainer.verdict else min(1.0, trainer.progress)
    told = {"note": event.note, "metrics": event.metrics, "text": event.text}
    return metrics_log.row(event.kind, trainer.step, share, **told)


class Reporter:
    """Writes down and reports what a trainer tells, seldom enough to cost little.

    All ranks report alike, in Ray Train and so to each other; rank 0 writes. What led to a
    checkpoint is in the file of rows before the checkpoint is there.

    Arguments:
        trainer: The trainer.
        work: Folder of the checkpoints and the file of rows.
        place: Where the worker stands.
        note: What to tell the user first.
    """

    def __init__(
        self, trainer: ResumableTraining, work: Path, place: WorkerContext, note: str = ""
    ) -> None:
        self.trainer, self.place, self.rank = trainer, place, trainer.shard[0]
        self.lone = trainer.shard[1] == 1  # waits for nobody when it reports
        self.checkpoints, self.file = Checkpoints(work / CHECKPOINTS), work / metrics_log.FILE
        resumed = Event(metrics_log.RESUMED, trainer.step, {}, note=note)
        self.rows = [row(trainer, resumed)] if trainer.step or note else []
        self.reported = self.saved = time.monotonic()
        self.taken: frozenset[str] = frozenset()

    def tell(self, event: Event) -> None:
        """Takes an event; reports it, with those before it, when it is time.

        The last one is left to :meth:`finish`.
        """
        self.rows.append(row(self.trainer, event))
        validated = event.kind == "validate"
        if self.trainer.verdict:
            return
        if event.kind == metrics_log.RESUMED:
            self.save()
        elif validated and (event.best or self._late(self.saved, SAVE_S)):
            self.save()
        elif (validated and self.lone) or self._late(self.reported, REPORT_S):
            self.save() if self._warned() else self._report()

    def save(self) -> None:
        """Reports what is left, and writes a checkpoint; both go to the storage too."""
        self._report()
        self.checkpoints.save(self.trainer)
        if self.rank == 0:
            store_writer.upload(self.file)
            store.upload_entries(self.checkpoints.folder, self.checkpoints.path(self.trainer.step))
        self.saved = time.monotonic()

    def finish(self) -> dict[str, Any]:
        """Saves the end; returns how it came to it: verdict, warnings, steps and seconds."""
        trainer = self.trainer
        with trainer.clock("report"):
            self.save()
        return {
            "verdict": trainer.verdict,
            "warnings": trainer.state.warnings,
            "steps": trainer.step,
            "best_step": trainer.state.best_step,
            "seconds": dict(trainer.clock.totals),
        }

    def _report(self) -> None:
        if self.rank == 0:
            store_writer.append(self.file, self.rows)
        self.place.report(self.rows)
        self.rows, self.reported = [], time.monotonic()

    def _warned(self) -> bool:
        """Whether a node of the training is told for the first time that it will be taken."""
        nodes = self.place.taken()
        new, self.taken = nodes - self.taken, self.taken | nodes
        return bool(new)

    def _late(self, since: float, seconds: float) -> bool:
        return bool(self.trainer.agreed(time.monotonic() - since > seconds))
