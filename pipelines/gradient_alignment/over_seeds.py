"""From measurements to a table: one line a model, with intervals over seeds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.gradient_alignment.models import BLIND, Model
from pipelines.reporting.result import Table, plus_minus
from pipelines.reporting.statistics import Interval, student


@dataclass(frozen=True)
class Column:
    """A number of the table.

    Attributes:
        metric: Its name.
        heading: What stands above it.
        digits: Its decimals.
    """

    metric: str
    heading: str
    digits: int = 3


COLUMNS = (
    Column("accuracy", "accuracy"),
    Column("gradient", "‖g‖", 2),
    Column("trace", "tr H", 0),
    Column("A1", "A1"),
    Column("A1/over gaussian", "A1 over Gaussian"),
    Column("A1/over flow", "A1 over flow"),
    Column("A2", "A2"),
    Column("A3", "A3"),
    Column("A1/centred", "A1 centred"),
    Column("DSM-cos", "DSM-cos"),
    Column("relF-opt/centred", "relF-opt centred"),
    Column("off-manifold", "off-manifold", 2),
    Column("GAN-test", "GAN-test", 2),
    Column("samples/log density", "log p / D", 2),
    Column("PP/own/raw", "PP own"),
    Column("PP/own/centred", "PP centred"),
    Column("PP/other/raw", "PP other"),
    Column("PP/other/centred", "PP other, centred"),
)
"""What the table of models shows; PP are mean accuracies of pixel perturbation.

A1 over a class-blind density is the model's less that of the baseline of its seed with it.
"""


@dataclass(frozen=True)
class Measured:
    """A model of one seed: what was measured of it, and the dimensions of the data."""

    model: Model
    numbers: Mapping[str, float]
    diagnosis: str
    warnings: Sequence[str]
    epochs: Sequence[Mapping[str, float]]
    arrays: Mapping[str, np.ndarray]
    width: int


def read(model: Model, folder: Path, width: int) -> Measured:
    """Reads what the measuring stage wrote, of data of ``width`` dimensions."""
    numbers = json.loads((folder / "numbers.json").read_text())
    with np.load(folder / "arrays.npz") as kept:
        return Measured(model=model, arrays=dict(kept), width=width, **numbers)


@dataclass(frozen=True)
class Line:
    """A model over its seeds.

    Attributes:
        model: The model, of the first seed.
        seeds: What was measured, seed by seed.
        overlap: Test rows over training rows, where seeds split the same rows anew.
    """

    model: Model
    seeds: Sequence[Measured]
    overlap: float = 0.0

    @property
    def diagnosis(self) -> str:
        """That of the first seed that has one."""
        return next(filter(None, (found.diagnosis for found in self.seeds)), "")

    def values(self, metric: str) -> np.ndarray:
        """Returns a metric seed by seed; NaN of a seed that diverged."""
        return np.array([found.numbers.get(metric, np.nan) for found in self.seeds])

    def interval(self, metric: str) -> Interval:
        """Returns the mean over seeds of a metric, with Student's 95 % interval, NaN of one."""
        return student(self.values(metric), overlap=self.overlap).interval()


Lines = Mapping[str, Line]
"""By the names of their models."""


def lines(found: Sequence[Measured], overlap: float = 0.0) -> dict[str, Line]:
    """Returns the lines by the names of the models, in their order, with A1 over what is blind."""
    groups: dict[str, list[Measured]] = {}
    for one in found:
        groups.setdefault(one.model.name, []).append(one)
    blind = {shift: groups.get(name, ()) for shift, name in BLIND.items()}
    return {
        name: Line(group[0].model, [_over(one, blind) for one in group], overlap)
        for name, group in groups.items()
    }


def _over(one: Measured, blind: Mapping[str, Sequence[Measured]]) -> Measured:
    """Adds A1 less that of the class-blind models of its seed, where both have one."""
    gains = {
        f"A1/over {shift}": one.numbers["A1"] - other.numbers["A1"]
        for shift, group in blind.items()
        for other in group
        if other.model.classifier.seed == one.model.classifier.seed
        and "A1" in one.numbers.keys() & other.numbers.keys()
    }
    return replace(one, numbers={**one.numbers, **gains})


def by_model(title: str, lines: Lines, columns: Sequence[Column], note: str) -> Table:
    """Returns a table with a row a model: means over seeds ± 95 % intervals, where any has one."""
    numbers = {name for line in lines.values() for one in line.seeds for name in one.numbers}
    known = [column for column in columns if column.metric in numbers]
    rows = [
        (name, *(plus_minus(line.interval(c.metric), c.digits) for c in known))
        for name, line in lines.items()
    ]
    return Table(title, ("model", *(column.heading for column in known)), rows, note)


def entry(line: Line) -> dict[str, Any]:
    """Returns what ``summary.json`` tells of a model; NaN where there is no number."""
    regularizer = line.model.classifier.regularizer
    metrics = sorted({name for one in line.seeds for name in one.numbers})
    return {
        "model": line.model.name,
        "about": line.model.about,
        "regularizer": regularizer.name,
        "preset": line.model.preset,
        "weight": regularizer.weight,
        "seeds": len(line.seeds),
        "diagnosis": line.diagnosis,
        "warnings": line.seeds[0].warnings,
        "metrics": {name: line.interval(name)._asdict() for name in metrics},
    }
