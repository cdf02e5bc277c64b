"""The loop around a training: checkpoints and reports, in any process."""

import faulthandler
import math
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed

from ebflow.checkpoint import check
from ebflow.history import Event
from pipelines import metrics_log, store
from pipelines.interruption import defer_sigint
from pipelines.metrics_log import Row
from pipelines.training.checkpoints import Checkpoints, resume

if TYPE_CHECKING:
    from pipelines.training.flow_training import FlowTraining

CHECKPOINTS = "checkpoints"  # Folder of the checkpoints below that of the training

REPORT_S = 1.0
SAVE_S = 20.0
SAVE = threading.Event()  # In a worker: set from a request for a checkpoint until it is saved
REQUEST_EVERY = 10  # Steps after which several workers agree on a requested checkpoint


@dataclass(frozen=True)
class WorkerContext:
    """A worker's place among the others; by default it is alone, in the process of its stage."""

    #: Reports rows, as :meth:`Reporter.log` does; all workers do so alike
    report: Callable[[Sequence[Row], bool], None]
    shard: tuple[int, int] = (0, 1)  #: Its rank, and how many there are
    local_rank: int = 0  #: Its rank on its node
    device: torch.device = torch.device("cuda", 0)  #: Its GPU, if it has one
    save: threading.Event | None = None  #: ``SAVE``, if checkpoints may be requested


class TrainingLoop:
    """Runs a training that reports what it yields, and resumes from its checkpoints.

    It saves seldom enough to cost little. All ranks report alike, in Ray Train and so to each
    other. It reports the rows up to a checkpoint before it writes the checkpoint. The folder
    ``work`` has the checkpoints.
    """

    def __init__(self, training: "FlowTraining", work: Path, worker: WorkerContext) -> None:
        self.training, self.work, self.worker = training, work, worker
        training.reload = self._reload
        self.lone = training.shard[1] == 1  # waits for nobody when it reports
        self.checkpoints = Checkpoints(work / CHECKPOINTS)
        self.rows: list[Row] = []
        self.reported = self.saved = time.monotonic()
        self.watched = -math.inf

    def run(self) -> dict[str, Any]:
        """Trains, from the last sound checkpoint on if there is one.

        A lone worker that is interrupted saves a checkpoint first. Returns the same as
        :meth:`finish`, and ``began``, the time at which the loop started.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        try:
            self.resume()
            for module in (self.training.module, self.training.averaged):  # steps; validations
                module.register_forward_pre_hook(self._watch)
            began = time.time()
            with defer_sigint() as interrupted:
                self.training.between = lambda: self._between(interrupted())
                for event in self.training.run():
                    with self.training.clock("report"):
                        self.take(event)
                return {"began": began, **self.finish()}
        finally:
            faulthandler.cancel_dump_traceback_later()
            if self.worker.local_rank == 0:
                store.evict(self.checkpoints.folder)

    def _watch(self, *_: object) -> None:
        """Ends this process, with the stacks of its threads, if it is not called again in time."""
        patience = self.training.config["cluster"]["patience"]
        patience *= 1 if self.lone else 2  # the others find a hung worker first
        if time.monotonic() - self.watched > patience / 10:  # a restart of the timer costs time
            self.watched = time.monotonic()
            faulthandler.dump_traceback_later(patience, exit=True, file=sys.__stderr__)

    def _between(self, interrupted: bool) -> None:
        """Saves a checkpoint before a step if one is requested, or if a lone worker ends."""
        save = self.worker.save
        now = save and (self.lone or self.training.step % REQUEST_EVERY == 0)
        if now and self.training.agreed(save.is_set()):
            self.report(keep=True)
            save.clear()
        if interrupted and self.lone:
            self.report(keep=True)
            raise KeyboardInterrupt

    def resume(self) -> None:
        """Restores the newest sound checkpoint, which rank 0 names for all."""
        training = self.training
        self._ensure_local()
        newest, note = self.checkpoints.newest() if training.shard[0] == 0 else (None, "")
        step = int(training.agreed(-1 if newest is None else newest))
        line = self._restore(step) if step >= 0 else ""
        if note := note or line:
            share = min(1.0, training.progress)
            self.rows.append(metrics_log.row(metrics_log.RESTARTED, training.step, share, note))

    def take(self, event: Event) -> None:
        """Takes an event; reports it, with those before it, when it is time.

        The last one is done by :meth:`finish`.
        """
        self.rows.append({**vars(event), "time": time.time()})
        validated, went_back = event.kind == "validate", event.kind == metrics_log.WENT_BACK
        if self.training.state.verdict:
            return
        if went_back or (validated and (event.best or self._late(self.saved, SAVE_S))):
            self.report(keep=True)
        elif (validated and self.lone) or self._late(self.reported, REPORT_S):
            self.report(keep=False)

    def report(self, *, keep: bool) -> None:
        """Reports what remains, and writes a checkpoint if ``keep``; both go to the storage."""
        self.worker.report(self.rows, keep)
        self.rows, self.reported = [], time.monotonic()
        if keep:
            self.checkpoints.save(self.training)
            if self.training.shard[0] == 0:
                store.mirror(self.checkpoints.folder, self.checkpoints.path(self.training.step))
            self.saved = time.monotonic()

    def finish(self) -> dict[str, Any]:
        """Saves the last checkpoint; returns verdict, warnings, steps, rows and seconds.

        ``limited`` is True if the time limit ended the training.
        """
        training, state = self.training, self.training.state
        with training.clock("report"):
            self.report(keep=True)
        limited, still = state.ended == "seconds", "while the validation NLL still fell"
        advice = [f"{state.verdict} {still}: raise --train.max-seconds"]
        return {
            "verdict": state.verdict,
            "limited": limited,
            "warnings": state.warnings + (advice if limited and not state.stale else []),
            "steps": training.step,
            "best_step": state.best_step,
            "validation_rows": len(training.held_out),
            "workers": training.workers,
            "seconds": dict(training.clock.totals),
        }

    def _restore(self, step: int) -> str:
        """Restores a checkpoint; returns a line about it."""
        training, count = self.training, self.training.shard[1]
        resume(training, self.checkpoints.path(step))
        before = training.workers[max(training.workers)]
        workers = f"{count} worker{'s' * (count > 1)}"
        if count == before:
            return f"resumes from step {step}" + (f" with {workers}" if self.worker.save else "")
        training.workers[step] = count
        return f"{'grew' if count > before else 'shrank'} to {workers} at step {step}"

    def _reload(self, step: int) -> None:
        self._ensure_local()
        self._restore(step)

    def _ensure_local(self) -> None:
        """Copies the checkpoints to every node."""
        if self.worker.local_rank == 0:
            store.download(self.checkpoints.folder)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()

    def _late(self, since: float, seconds: float) -> bool:
        return bool(self.training.agreed(time.monotonic() - since > seconds))


def export_checkpoints(work: Path, steps: Mapping[str, int], output: Path) -> None:
    """Copies the checkpoints of some steps to new names; raises BadInput if one is corrupt."""
    store.download(work / CHECKPOINTS)
    for name, step in steps.items():
        shutil.copytree(Checkpoints(work / CHECKPOINTS).path(step), output / name)
        check(output / name)
