"""An MLflow run for every trial, below the search's, made from the trials' records."""

__all__ = ["TrialRuns"]

import json
from pathlib import Path

from pipelines import rows
from pipelines.config_files import dump
from pipelines.method import method
from pipelines.notes import NOTE, note
from pipelines.tracking import Follower, Sender, StageRun
from tuning import records
from tuning.records import Record

STATUS = {
    records.FINISHED: "FINISHED",
    records.PRUNED: "KILLED",
    records.STOPPED: "KILLED",
    records.FAILED: "FAILED",
}

AGAIN = "ebflow run density --config config.yaml --data.source DATA"
"""How to train a trial again, from the file among its run's artefacts."""


class TrialRuns(Sender):
    """Keeps the runs of trials as their records and rows say, each number once.

    Trials write files; this is the one writer of their runs. A trial that an earlier search ended
    keeps its run, which moves below the present search's.

    Arguments:
        root: Folder of the trials.
        run: The search's run.
    """

    def __init__(self, root: Path, run: StageRun) -> None:
        super().__init__()
        self.root, self.run = root, run
        self.followers: dict[int, Follower] = {}
        self.described: set[int] = set()
        for path in root.glob(f"*/{records.RUN}"):
            run.adopt(json.loads(path.read_text()))

    def send(self) -> None:
        """Makes the runs that are missing, sends their rows, and ends those of ended trials."""
        for record in records.read(self.root):
            if not (records.folder(self.root, record.number) / records.RUN).exists():
                self._send(record)

    def _send(self, record: Record) -> None:
        if record.number not in self.followers:
            self.followers[record.number] = self._start(record)
        follower = self.followers[record.number]
        if record.number not in self.described:
            self._describe(record, follower.run)
        follower.send()
        if record.state != records.RUNNING:
            self._end(record, follower.run)

    def _describe(self, record: Record, run: StageRun) -> None:
        """Logs the configuration, also as a file that ``ebflow run density --config`` takes."""
        file = records.folder(self.root, record.number) / "config.yaml"
        file.write_text(dump(record.training))
        run.log_params(record.config)
        run.log_artifacts(file)
        about = f"Trial {record.number} of a search: {method(record.training)}."
        run.set_tags({NOTE: note(about, AGAIN)})
        self.described.add(record.number)

    def _start(self, record: Record) -> Follower:
        run = self.run.child(record.name, {"ebflow.trial": str(record.number)})
        return Follower(records.folder(self.root, record.number) / rows.FILE, run)

    def _end(self, record: Record, run: StageRun) -> None:
        tags = {"ebflow.state": record.state}
        if record.state in (records.PRUNED, records.STOPPED):
            tags["ebflow.pruned"] = f"at {record.share:.0%} of the training"
        if record.reason:
            tags["ebflow.error"] = record.reason
        run.set_tags(tags)
        if record.nll is not None:
            run.log_metrics({"trial/nll": record.nll, "trial/seconds": record.seconds})
        run.end(STATUS[record.state])
        (records.folder(self.root, record.number) / records.RUN).write_text(json.dumps(run.id))
