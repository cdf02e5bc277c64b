"""An MLflow run for every trial, below the search's, made from the trials' records."""

import json
from pathlib import Path

from pipelines.store.files import write_text
from pipelines.tracking import metrics_log
from pipelines.tracking.following import Follower, Sender
from pipelines.tracking.notes import NOTE, note
from pipelines.tracking.run import StageRun
from tuning import records
from tuning.problem import Problem
from tuning.records import Record

STATUS = {
    records.FINISHED: "FINISHED",
    records.PRUNED: "KILLED",
    records.STOPPED: "KILLED",
    records.FAILED: "FAILED",
}


class TrialRuns(Sender):
    """Keeps the runs of trials as their records and rows say, each number once.

    Trials write files; this is the one writer of their runs. A trial of a search that was
    interrupted keeps its run, which moves below the present search's, and goes on if the trial
    does.

    Arguments:
        root: Folder of the trials.
        problem: What they are trials of.
        run: The search's run.
    """

    def __init__(self, root: Path, problem: Problem, run: StageRun) -> None:
        super().__init__()
        self.root, self.problem, self.run = root, problem, run
        self.followers: dict[int, Follower] = {}
        for path in root.glob(f"*/{records.RUN}"):
            run.adopt(json.loads(path.read_text()))

    def send(self) -> None:
        """Makes the runs that are missing, sends their rows, and ends those of ended trials."""
        for record in records.read(self.root):
            if not self._file(record, records.ENDED).exists():
                self._send(record)

    def _file(self, record: Record, name: str) -> Path:
        return records.folder(self.root, record.number) / name

    def _send(self, record: Record) -> None:
        if record.number not in self.followers:
            self.followers[record.number] = self._start(record)
        follower = self.followers[record.number]
        follower.send()
        if record.state != records.RUNNING:
            self._end(record, follower.run)

    def _start(self, record: Record) -> Follower:
        config, file = self.problem.of(record), self._file(record, records.RUN)
        if file.exists():
            run = StageRun(self.run.client, json.loads(file.read_text()))
            run.begin()
        else:
            base = " base" if record.number == records.BASE else ""
            name = f"trial {record.number:03d} {self.problem.label(config)}{base}"
            run = self.run.child(name, {"ebflow.trial": str(record.number)})
            write_text(file, json.dumps(run.id))
        run.log_params(record.config)
        about = f"Trial {record.number} of a search: {self.problem.method(config)}."
        run.set_tags({NOTE: note(about, "")})
        return Follower(self._file(record, metrics_log.FILE), run)

    def _end(self, record: Record, run: StageRun) -> None:
        tags = {"ebflow.state": record.state}
        if record.state in (records.PRUNED, records.STOPPED):
            rule = f": {record.reason}" if record.reason else ""
            tags["ebflow.pruned"] = f"at {record.share:.0%} of the training{rule}"
        elif record.reason:
            tags["ebflow.error"] = record.reason
        run.set_tags(tags)
        if record.scores:
            numbers = {**record.scores, "seconds": record.seconds}
            run.log_metrics({f"trial/{name}": value for name, value in numbers.items()})
        run.end(STATUS[record.state])
        self._file(record, records.ENDED).touch()
