"""The cells of a search of score matching's settings: λ, μ, σ and the noise of training."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ebflow.errors import BadInput
from pipelines.gradient_alignment.config import SweepConfig


class Cell(NamedTuple):
    """A setting of score matching."""

    weight: float  # λ
    stability: float  # μ
    step: float  # σ
    noise: float  # of the training

    @property
    def name(self) -> str:
        """The name of its model."""
        return "search-" + "-".join(f"{value:g}" for value in self)

    @property
    def about(self) -> str:
        """The setting in words."""
        weight, stability, step, noise = self
        return f"search: λ = {weight:g}, μ = {stability:g}, σ = {step:g}, noise {noise:g}"


AXES = {"weight": "λ", "stability": "μ", "step": "σ", "noise": "noise"}  # Fields of a cell


def cells(sweep: SweepConfig, centre: Cell) -> list[Cell]:
    """Returns the cells of a search but for its centre, each once.

    A ``star`` changes one setting of the centre at a time; a ``grid`` has all combinations.

    Raises:
        BadInput: If a value is not allowed.
    """
    values = _values(sweep)
    for name, levels in values.items():
        if min(levels, default=1.0) < 0 or (name != "stability" and 0 in levels):
            expected = "numbers of at least 0" if name == "stability" else "numbers above 0"
            option = f"--sweep.{OPTIONS[name]}"
            raise BadInput(option=option, found=" ".join(map(str, levels)), expected=expected)
    found = _star(values, centre) if sweep.kind == "star" else _grid(values, centre)
    return [cell for cell in dict.fromkeys(found) if cell != centre]


# The option of each field of a cell.
OPTIONS = {"weight": "weights", "stability": "stabilities", "step": "steps", "noise": "noises"}


def _values(sweep: SweepConfig) -> dict[str, Sequence[float]]:
    return {name: getattr(sweep, option) or () for name, option in OPTIONS.items()}


def _star(values: Mapping[str, Sequence[float]], centre: Cell) -> Iterator[Cell]:
    for name, levels in values.items():
        yield from (centre._replace(**{name: level}) for level in levels)


def _grid(values: Mapping[str, Sequence[float]], centre: Cell) -> Iterator[Cell]:
    levels = [values[name] or (getattr(centre, name),) for name in Cell._fields]
    yield from itertools.starmap(Cell, itertools.product(*levels))
