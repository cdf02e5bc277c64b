"""What is known of a search's trials: a folder each, with a record and the rows of its training.

The records are the truth that the table, the figures and MLflow are made from, and that an
interrupted search goes on from.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines import store
from pipelines.config import canonical
from pipelines.store.files import write_text
from tuning.config import TuneConfig

TRIALS, ALL = "trials", "trials.json"
"""Folder of their folders, in that of the work of a search; file of all, when it has ended."""

FILE, REASON, RUN, ENDED = "trial.json", "reason", "run.json", "ended"
BEGUN = "begun"
"""File of an unfinished search, beside its trials: which one it is."""

DIED = "the process of the trial died: killed, or out of memory"
BASE = 0
"""The number of the trial that is the base itself."""

RUNNING, FINISHED, PRUNED, STOPPED, FAILED = "running", "finished", "pruned", "stopped", "failed"


@dataclass(frozen=True)
class Record:
    """A trial.

    Attributes:
        number: Its number; 0 is the base.
        config: Its configuration, as fields.
        changes: In which fields it differs from the base, by their dotted names.
        params: Parameters of the search space and their values.
        state: ``running``; ``finished``; ``pruned`` (stopped early, as others were better, or by
            a rule, whose line is the reason); ``stopped`` (the search's time was up); ``failed``.
        scores: What its validation rows gave last, by goal; empty before the first validation.
        step: Steps, or epochs, done.
        seconds: Training time (s).
        share: Share of its training that is done.
        reason: Why it failed, or which rule ended it.
    """

    number: int
    config: dict[str, Any]
    changes: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    state: str = RUNNING
    scores: dict[str, float] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0
    share: float = 0.0
    reason: str = ""


def mark(config: TuneConfig, work: Path) -> None:
    """Marks the folder that an unfinished search goes on from."""
    write_text(work / BEGUN, canonical(config))


def begun(config: TuneConfig) -> bool:
    """Returns whether a search of this kind was interrupted."""
    marks = (store.home() / "work" / "search").glob(f"*/{BEGUN}")
    return any(path.read_text() == canonical(config) for path in marks)


def label(number: int) -> str:
    """Returns what a reader is told a trial is."""
    return "default" if number == BASE else f"trial {number}"


def folder(root: Path, number: int) -> Path:
    """Returns the folder of a trial."""
    return root / f"{number:03d}"


def write(root: Path, record: Record) -> None:
    """Writes a record into its trial's folder, whole or not at all."""
    path = folder(root, record.number) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(asdict(record), indent=1) + "\n")


def begin(root: Path, number: int) -> None:
    """Takes back what a trial that goes on or starts again was said to have come to."""
    for name in (REASON, ENDED):
        (folder(root, number) / name).unlink(missing_ok=True)


def tell_reason(root: Path, number: int, line: str) -> None:
    """Notes why a trial fails, in the process where it does."""
    (folder(root, number) / REASON).write_text(line)


def reason(root: Path, number: int) -> str:
    """Returns why a trial failed; a process that died told nothing."""
    path = folder(root, number) / REASON
    return path.read_text() if path.exists() else DIED


def read(root: Path) -> list[Record]:
    """Returns the records of all trials, by their numbers."""
    found = (json.loads(path.read_text()) for path in root.glob(f"*/{FILE}"))
    return sorted((Record(**fields) for fields in found), key=lambda record: record.number)


def load(folder: Path) -> list[Record]:
    """Returns the records of a search's trials from what its stage left."""
    return [Record(**fields) for fields in json.loads((folder / ALL).read_text())]
