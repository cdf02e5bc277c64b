"""From measurements to a table: one line a model, with intervals over seeds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ebflow.inference import Interval, student
from pipelines.gradient_alignment.models import BLIND, Model
from pipelines.reporting.intervals import fields, shown


@dataclass(frozen=True)
class Column:
    """A number of the table.

    Attributes:
        metric: Its name.
        heading: What stands above it.
        digits: Its decimals.
        brief: Whether a terminal shows it too.
    """

    metric: str
    heading: str
    digits: int = 3
    brief: bool = True


COLUMNS = (
    Column("accuracy", "accuracy"),
    Column("accuracy/noisy", "noisy", brief=False),
    Column("gradient", "‖g‖", 2),
    Column("trace", "tr H", 0, brief=False),
    Column("A1", "A1"),
    Column("A1/over gaussian", "A1 over Gaussian"),
    Column("A1/over flow", "A1 over flow"),
    Column("A2", "A2", brief=False),
    Column("A3", "A3"),
    Column("A1/centred", "A1 centred", brief=False),
    Column("DSM-cos", "DSM-cos", brief=False),
    Column("DSM residual", "DSM residual", 0, brief=False),
    Column("relF", "relF", brief=False),
    Column("relF-opt", "relF-opt", brief=False),
    Column("relF-opt/centred", "relF-opt centred", brief=False),
    Column("off-manifold", "off-manifold", 2, brief=False),
    Column("GAN-test", "GAN-test", 2, brief=False),
    Column("samples/log density", "log p / D", 2, brief=False),
    Column("PP/own/raw", "PP own"),
    Column("PP/own/deviation", "PP own, deviation", brief=False),
    Column("PP/base/raw", "PP base", brief=False),
    Column("PP/own/centred", "PP centred", brief=False),
    Column("PP/base/centred", "PP base, centred", brief=False),
    Column("PP/other/raw", "PP other", brief=False),
    Column("PP/other/centred", "PP other, centred", brief=False),
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
        arrays = dict(kept)
    return Measured(model=model, arrays=arrays, width=width, **numbers)


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

    @property
    def warnings(self) -> list[str]:
        """Those of the first seed: they are of settings."""
        return list(self.seeds[0].warnings)

    def values(self, metric: str) -> np.ndarray:
        """Returns a metric seed by seed; NaN of a seed that diverged."""
        return np.array([found.numbers.get(metric, np.nan) for found in self.seeds])

    def interval(self, metric: str) -> Interval:
        """Returns the mean over seeds of a metric, with Student's 95 % interval, NaN of one."""
        return student(self.values(metric), overlap=self.overlap).interval()

    def curve(self, name: str) -> np.ndarray:
        """Returns an array, the mean over seeds."""
        return np.mean([one.arrays[name] for one in self.seeds], axis=0)


def lines(found: Sequence[Measured], overlap: float = 0.0) -> dict[str, Line]:
    """Returns the lines by the names of the models, in their order, with A1 over what is blind."""
    shifts = {name: shift for shift, name in BLIND.items()}
    blind = {
        (shifts[one.model.name], one.model.classifier.seed): one.numbers
        for one in found
        if one.model.name in shifts
    }
    groups: dict[str, list[Measured]] = {}
    for one in found:
        groups.setdefault(one.model.name, []).append(_over(one, blind))
    return {name: Line(group[0].model, group, overlap) for name, group in groups.items()}


def _over(one: Measured, blind: Mapping[tuple[str, int], Mapping[str, float]]) -> Measured:
    """Adds A1 less that of the class-blind models of its seed, where both have one."""
    gains = {
        f"A1/over {shift}": one.numbers["A1"] - numbers["A1"]
        for (shift, seed), numbers in blind.items()
        if seed == one.model.classifier.seed and "A1" in one.numbers and "A1" in numbers
    }
    return replace(one, numbers={**one.numbers, **gains})


def measured(lines: Mapping[str, Line], columns: Sequence[Column]) -> list[Column]:
    """Returns the columns of what was measured of some model."""
    numbers = {name for line in lines.values() for one in line.seeds for name in one.numbers}
    return [column for column in columns if column.metric in numbers]


def cells(lines: Mapping[str, Line], columns: Sequence[Column]) -> list[tuple[str, ...]]:
    """Returns a row of text a model: its name, and means over seeds ± 95 % intervals."""
    return [
        (name, *(shown(line.interval(c.metric), c.digits) for c in columns))
        for name, line in lines.items()
    ]


def entry(line: Line) -> dict[str, Any]:
    """Returns what ``summary.json`` tells of a model; null where there is no number."""
    regulariser = line.model.classifier.regulariser
    metrics = sorted({name for one in line.seeds for name in one.numbers})
    return {
        "model": line.model.name,
        "about": line.model.about,
        "regulariser": regulariser.name,
        "preset": line.model.preset,
        "weight": regulariser.weight,
        "seeds": len(line.seeds),
        "diagnosis": line.diagnosis,
        "warnings": line.warnings,
        "metrics": {name: fields(line.interval(name)) for name in metrics},
    }
