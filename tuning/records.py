"""What is known of a search's trials: a folder each, with a record and the rows of its training.

The records are the truth that the table, the figures and MLflow are made from, and that an
interrupted search goes on from.
"""

__all__ = [
    "BASE",
    "DIED",
    "FAILED",
    "FINISHED",
    "PRUNED",
    "RUN",
    "RUNNING",
    "STOPPED",
    "Record",
    "begin",
    "folder",
    "ranked",
    "read",
    "reason",
    "tell_reason",
    "write",
]

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.config import LIKELIHOOD, Training

FILE, REASON, RUN = "trial.json", "reason", "run.json"
DIED = "the process of the trial died: killed, or out of memory"
BASE = 0
"""The number of the trial that is the base itself."""

RUNNING, FINISHED, PRUNED, STOPPED, FAILED = "running", "finished", "pruned", "stopped", "failed"


@dataclass(frozen=True)
class Record:
    """A trial.

    Attributes:
        number: Its number; 0 is the base.
        config: Its configuration, fields of :class:`pipelines.config.Training`.
        changes: In which fields it differs from the base, by their dotted names.
        params: Parameters of the search space and their values.
        state: ``running``; ``finished``; ``pruned`` (stopped early, as others were better);
            ``stopped`` (the search's time was up); ``failed``.
        nll: Least validation NLL so far (nats); None before the first validation.
        step: Optimiser steps done.
        seconds: Training time (s).
        share: Share of its training that is done.
        reason: Why it failed.
    """

    number: int
    config: dict[str, Any]
    changes: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    state: str = RUNNING
    nll: float | None = None
    step: int = 0
    seconds: float = 0.0
    share: float = 0.0
    reason: str = ""

    @property
    def training(self) -> Training:
        """The configuration."""
        return Training.model_validate(self.config)

    @property
    def name(self) -> str:
        """Number, objective and what characterises it."""
        config = self.training
        told = [f"trial {self.number:03d}", config.objective.name]
        noise = config.objective.options.get("sigma")
        told += [f"σ {noise:.2g}"] if noise else []
        told += ["anchored"] if config.anchor.weight and told[1] not in LIKELIHOOD else []
        return " ".join([*told, *(["base"] if self.number == BASE else [])])


def folder(root: Path, number: int) -> Path:
    """Returns the folder of a trial."""
    return root / f"{number:03d}"


def write(root: Path, record: Record) -> None:
    """Writes a record into its trial's folder, whole or not at all."""
    path = folder(root, record.number) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(asdict(record), indent=1) + "\n")
    os.replace(draft, path)


def begin(root: Path, number: int) -> None:
    """Takes back what a trial that goes on or starts again was said to have come to."""
    for name in (REASON, RUN):
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
    return sorted((Record(**told) for told in found), key=lambda record: record.number)


def ranked(records: Iterable[Record]) -> list[Record]:
    """Returns the finished trials, the least NLL first."""
    done = [record for record in records if record.state == FINISHED and record.nll is not None]
    return sorted(done, key=lambda record: (record.nll, record.number))
