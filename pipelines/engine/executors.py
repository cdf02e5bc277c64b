"""Where stages run: in the driver, as tasks of Ray, or nowhere."""

__all__ = ["Progress", "RayExecutor", "StageExecutor"]

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from redun.executors.base import Executor
from redun.scheduler import Job

from pipelines import cluster
from pipelines.engine.retries import Retries, passing
from pipelines.engine.stage import KEY_LENGTH, Context, call
from pipelines.engine.turns import ALONE, Amounts, Turns
from pipelines.faults import failure, told
from pipelines.interruption import interrupted

NEEDS: dict[str, Callable[[Any], Amounts]] = {
    "preprocess": lambda config: config.needs,
    "train": lambda config: config.needs,
    "evaluate": lambda config: {"CPU": 1},
    "diverge": lambda config: {"CPU": 1},
    "impute": lambda config: {"CPU": config.threads},
    "steps": lambda config: ALONE,
    "peer": lambda config: config.needs,
    "search": lambda config: ALONE,
    "learn": lambda config: {"CPU": 1},
    "flow": lambda config: config.needs,
    "reference": lambda config: config.needs,
    "classify": lambda config: config.needs,
    "measure": lambda config: config.needs,
    "score": lambda config: config.needs,
}
"""The stages that take CPUs or GPUs, and how many, as a function of their configuration.

Workers of Ray Train wait in vain for what others hold; a benchmark wants the machine alone, and a
search fills it; and a training that is bounded by time is not to depend on what else is measured
meanwhile.
"""

SPAWNING = ("train", "search")
"""Stages that only wait for workers, which Ray gives CPUs or GPUs apart."""


def _held(stage: str, arguments: Sequence[Any]) -> dict[str, float]:
    """Returns what Ray gives a stage itself: a CPU and its GPUs if it computes, and so a node."""
    if stage not in NEEDS or stage in SPAWNING:
        return {"num_cpus": 0}
    gpus = NEEDS[stage](arguments[0]).get("GPU", 0)
    return {"num_cpus": 1, "num_gpus": gpus if math.isfinite(gpus) else 0}


class Progress(Protocol):
    """Is told of each stage that runs; cached stages do not run."""

    def started(self, stage: str, key: str) -> None:
        """A stage starts."""

    def finished(self, stage: str, key: str) -> None:
        """It ended well."""

    def retried(self, stage: str, error: str, pause: float) -> None:
        """It failed, and will be tried again in so many seconds."""


class Host(Protocol):
    """What executors ask of the engine."""

    progress: Progress
    workers: int
    retries: Retries

    def context(self) -> Context:
        """Returns the context of the stages that run."""


class StageExecutor(Executor):
    """Runs stages one by one in the driver: those that read what lies where the user is.

    Arguments:
        name: What a task calls it by.
        engine: Gives the context, and is told what runs.
    """

    def __init__(self, name: str, engine: Host) -> None:
        super().__init__(name)
        self.engine = engine

    def submit(self, job: Job) -> None:
        """Starts a stage that was not found in the store."""
        assert job.args is not None and job.eval_hash is not None
        self.engine.context()
        self.engine.progress.started(job.task.name, job.eval_hash[:KEY_LENGTH])
        self._attempt(job, 0)

    def _attempt(self, job: Job, number: int) -> None:
        """Starts a stage; the first attempt has the number 0."""
        task, context = job.task, self.engine.context()
        future = self._start(task.load_module, task.fullname, *job.args, context)
        future.add_done_callback(partial(self._done, job, number))

    def _done(self, job: Job, number: int, future: Future) -> None:
        error = future.exception()
        if error is None or not self._to_try_again(number, error):
            self._ended(job, future)
            return
        log.warning("%s failed, and is tried again", job.task.name, exc_info=error)
        pause = self.engine.retries.before(number)
        self.engine.progress.retried(job.task.name, told(error), pause)
        self._later(pause, job, number + 1)

    def _to_try_again(self, number: int, error: BaseException) -> bool:
        tries_left = number < self.engine.retries.count and not interrupted()
        return tries_left and passing(error)

    def _later(self, pause: float, job: Job, number: int) -> None:
        time.sleep(pause)
        self._attempt(job, number)

    def _start(self, *words: Any) -> Future:  # noqa: ANN401
        future: Future = Future()
        try:
            future.set_result(call(*words))
        except Exception as error:  # noqa: BLE001  (handed on to the scheduler, as a pool does)
            future.set_exception(error)
        return future

    def _ended(self, job: Job, future: Future) -> None:
        assert self._scheduler is not None
        error = future.exception()
        if error is None:
            self.engine.progress.finished(job.task.name, job.eval_hash[:KEY_LENGTH])
            self._scheduler.done_job(job, future.result())
        else:
            log.error("%s failed", job.task.name, exc_info=error)
            self._scheduler.reject_job(job, failure(error))


class RayExecutor(StageExecutor):
    """Runs stages as Ray tasks: those that compute on a node that has a CPU to give.

    Ray starts with the first of them: in this machine, or at ``RAY_ADDRESS`` where that is set.
    """

    def __init__(self, name: str, engine: Host) -> None:
        super().__init__(name, engine)
        self.running: list[Any] = []
        self.turns: Turns[Job] = Turns(self._room)
        self.connection = cluster.Connection()
        self.connecting = threading.Lock()

    def submit(self, job: Job) -> None:
        """Starts a stage; one that takes CPUs or GPUs once there is room for it."""
        if job.task.name not in NEEDS:
            super().submit(job)
            return
        config = job.args[0][0]
        self._begin(self.turns.add(job, NEEDS[job.task.name](config)))

    def _begin(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            try:
                super().submit(job)
            except Exception as error:  # noqa: BLE001  (handed on to the scheduler)
                self._rejected(job, error)

    def _rejected(self, job: Job, error: Exception) -> None:
        future: Future = Future()
        future.set_exception(error)
        self._ended(job, future)

    def _to_try_again(self, number: int, error: BaseException) -> bool:
        """What is stopped fails too."""
        return not self.turns.closed and super()._to_try_again(number, error)

    def _later(self, pause: float, job: Job, number: int) -> None:
        """Attempts from a thread of its own: others go on meanwhile."""
        timer = threading.Timer(pause, self._again, [job, number])
        timer.daemon = True
        timer.start()

    def _again(self, job: Job, number: int) -> None:
        if self.turns.closed:
            return
        try:
            self._attempt(job, number)
        except Exception as error:  # noqa: BLE001  (handed on to the scheduler)
            self._rejected(job, error)

    def _ended(self, job: Job, future: Future) -> None:
        try:
            super()._ended(job, future)
        finally:
            if job.task.name in NEEDS:
                # Not in Ray's own thread, which calls this.
                threading.Thread(target=self._next, args=(job,), daemon=True).start()

    def _next(self, job: Job) -> None:
        self._begin(self.turns.done(job))

    def _room(self) -> Amounts:
        """Returns Ray's CPUs and GPUs."""
        import ray

        self._connect()
        return ray.cluster_resources()

    def _start(self, *words: Any) -> Future:  # noqa: ANN401
        import ray

        self._connect()
        _, task, arguments, *_ = words
        stage = task.rpartition(".")[2]
        held = _held(stage, arguments) | self._place(stage)
        reference = ray.remote(**held, max_retries=0)(call).remote(*words)
        self.running.append(reference)
        return reference.future()

    def _place(self, stage: str) -> dict[str, Any]:
        """Returns where a stage must run: one that spawns workers, at the store of the driver."""
        if self.connection.node is None or stage not in SPAWNING:
            return {}
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self.connection.node, soft=False)
        return {"scheduling_strategy": here}

    def _connect(self) -> None:
        import ray

        with self.connecting:
            if not ray.is_initialized():
                with _own_sigterm():
                    self.connection = cluster.start(self.engine.workers)

    def stop(self) -> None:
        """Cancels what still runs, and leaves Ray."""
        self.turns.close()
        if self.running:
            cluster.stop(self.running, self.connection)
            self.running.clear()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keeps the handler of SIGTERM, which Ray replaces by one that aborts."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


log = logging.getLogger("ebflow.engine")
