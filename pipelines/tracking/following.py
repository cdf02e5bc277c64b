"""Metrics reach the store from a file of rows that the training appends to.

A store that stays away loses nothing, and slows nothing down.
"""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from mlflow.exceptions import MlflowException

from pipelines import store
from pipelines.tracking import metrics_log
from pipelines.tracking.run import StageRun


class Sender(ABC):
    """Sends what is new to the store, from a thread; what the store refuses is tried again.

    Arguments:
        interval: Seconds between looks.
    """

    def __init__(self, interval: float = 1.0) -> None:
        self.interval = interval
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    @abstractmethod
    def send(self) -> None:
        """Sends what is new, and what was refused before.

        Raises:
            MlflowException: If the store is away; what was not sent stays pending.
            OSError: If what is to be sent cannot be read; it is read again.
        """

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.stopped.set()
        self.thread.join()
        if kind is None:
            self.send()
        else:
            self._try()

    def _try(self) -> None:
        try:
            self.send()
        except (MlflowException, OSError) as error:
            log.warning("metrics wait for MLflow, or for the disk: %s", error)

    def _follow(self) -> None:
        while not self.stopped.wait(self.interval):
            self._try()


class Follower(Sender):
    """Sends the rows of a growing file to a run, each once.

    A row of a kind is sent if its step is beyond the last one sent of that kind, so what a
    restarted training repeats is not sent twice. Failures of workers become tags:
    ``ebflow.failure.1``, … and ``ebflow.restarts``.

    Arguments:
        path: File of rows (``metrics_log.py``).
        run: Where they go.
        interval: Seconds between looks.
    """

    def __init__(self, path: Path, run: StageRun, interval: float = 1.0) -> None:
        super().__init__(interval)
        self.path, self.run = path, run
        self.read = 0
        self.sent: dict[str, int] = {}
        self.pending: list[metrics_log.Row] = []
        self.failures: list[str] = []
        self.restarts = 0
        self.tagged: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Begins, where the file goes to a storage with what is kept of it there."""
        store.download(self.path)
        return super().__enter__()

    def send(self) -> None:
        """Sends what is new, and what was refused before; raises as :meth:`Sender.send`."""
        self.pending += self._new()
        self.run.log_rows(self.pending)
        self.pending = []
        if (tags := self._tags()) != self.tagged:
            self.run.set_tags(tags)
            self.tagged = tags

    def _tags(self) -> dict[str, str]:
        failures = {f"ebflow.failure.{i}": note for i, note in enumerate(self.failures, 1)}
        return {**failures, "ebflow.restarts": str(self.restarts)} if failures else {}

    def _new(self) -> Iterator[metrics_log.Row]:
        """Reads on; what follows a failure was told by workers that had been restarted."""
        rows = metrics_log.read(self.path)
        new, self.read = rows[self.read :], len(rows)
        for row in new:
            self.restarts = len(self.failures)
            if row["kind"] == metrics_log.FAILURE:
                self.failures.append(row["note"])
            elif row["step"] > self.sent.get(row["kind"], -1):
                self.sent[row["kind"]] = row["step"]
                yield row


log = logging.getLogger("ebflow.tracking")
