"""The reporter of a stage: how far it is, and what it measures."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines import metrics_log, store
from pipelines.metrics_log import Row
from pipelines.tracking.run import StageRun

REPORT_S = 1.0

Show = Callable[[float, str, str], None]
"""Shows the share of a stage that is done, what it does now, and a note, which may be empty."""


class Reporter:
    """Reports the progress and the metrics of a stage.

    Progress goes to the user's terminal. Rows of a training go there too, to a file and to MLflow.
    Threads of MLflow's client send them, so that MLflow's absence delays nothing; ``finish`` sends
    what it lacks. Another process may go on with a copy of a reporter on the same node.

    Arguments:
        file: File of the rows. Those that an earlier attempt has left there are sent again.
        run: MLflow run of the stage; None: MLflow gets nothing.
        show: Shows progress.
        listener: Called with new rows.
    """

    def __init__(
        self,
        file: Path,
        run: StageRun | None = None,
        show: Show = lambda share, text, note: None,
        listener: Callable[[Sequence[Row]], None] = lambda rows: None,
    ) -> None:
        self.file, self.run, self.show, self.listener = file, run, show, listener
        self.shown, self.shown_at = "", -math.inf
        self.warned, self.nll = False, math.nan
        store.download(file)
        if run is not None:
            run.send(metrics_log.standing(metrics_log.read(file)))

    def progress(self, share: float, text: str, note: str = "") -> None:
        """Shows the share that is done: once a second at most, unless text or note are new."""
        if note or text != self.shown or time.monotonic() - self.shown_at >= REPORT_S:
            self.shown, self.shown_at = text, time.monotonic()
            self.show(share, text, note)

    def log(self, rows: Sequence[Row], *, keep: bool = False) -> None:
        """Writes, shows and sends rows of a training.

        Arguments:
            rows: The rows.
            keep: True if a checkpoint follows; a bucket gets the file then, and at validations.
        """
        if rows:
            metrics_log.append(self.file, rows)
            for row in rows:
                self._show(row)
            if self.run is not None:
                self.run.send(rows)
        if keep or any(row["kind"] == "validate" for row in rows):
            store.upload(self.file)
        if rows:  # last: a search may stop the training here
            self.listener(rows)

    def fail(self, note: str) -> None:
        """Reports a failure of workers, at the step where the training is."""
        rows = metrics_log.read(self.file)
        step, share = (rows[-1]["step"], rows[-1]["share"]) if rows else (0, 0.0)
        row = metrics_log.row(metrics_log.FAILURE, step, share, note, text=note)
        self.log([row])
        if self.run is not None:
            self.run.set_tags(metrics_log.failures([*rows, row]), wait=False)

    def finish(self) -> None:
        """Sends what MLflow lacks of the curve that stands, and waits for it.

        Raises:
            MlflowException: If MLflow cannot be reached.
        """
        if self.run is not None:
            self.run.complete(metrics_log.read(self.file))

    def _show(self, row: Row) -> None:
        """Shows a row; of the notes of validations, the first."""
        self.nll = row["metrics"].get("val/nll", self.nll)
        text = row["text"] or f"step {row['step']}, validation NLL {self.nll:.2f}"
        validated = row["kind"] == "validate"
        note = "" if validated and self.warned else row["note"]
        self.warned = self.warned or bool(validated and note)
        self.progress(row["share"], text, note)
