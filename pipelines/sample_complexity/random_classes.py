"""Random finite classes: the error of what empirical risk minimization chooses.

Columns of rows beside those in ``rows.py``: ``against`` and ``value``, the quantity that is varied
and its value, and ``over_epsilon``, the quantile error times σ, over ε.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from ebflow.complexity.classes import MASS, RandomClass, class_crossing, easy_samples
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.config import EPSILON, ClassCell
from pipelines.sample_complexity.far_mode import geometric

CLASS = "random class"  # The name in the column ``learner``

HYPOTHESES = 100  # |H| if it is not varied
ACROSS = 64  # d if it is not varied: enough for 10,000 directions to be far apart
FEW = 8  # d of slabs

# The grid of m: the first, the ratio, and the end over the m of the closed form.
FIRST, RATIO, REACH = 2, 1.1, 3.0


class Setting(NamedTuple):
    """A random class."""

    hypotheses: int = HYPOTHESES  #: |H|, with the truth
    size: int = ACROSS  #: d
    epsilon: float = EPSILON  #: ε, half the error of a wrong hypothesis
    mass: float = 1.0  #: The probability of the set on which it errs

    @property
    def crossing(self) -> float:
        """The m at which half of the training sets find the truth, by the closed form."""
        return class_crossing(self.hypotheses - 1, self.epsilon, self.mass)


# From the quantity that is varied and its number to the class.
SETTINGS = {
    "log |H|": lambda count: Setting(hypotheses=int(count)),
    "d": lambda size: Setting(size=int(size)),
    "1/ε": lambda epsilon: Setting(epsilon=epsilon),
    "1/δ": lambda delta: Setting(size=FEW, mass=MASS * delta),
}

# From that number to the value of the quantity.
VALUES = {"log |H|": math.log, "d": float, "1/ε": lambda e: 1 / e, "1/δ": lambda d: 1 / d}


def random_classes(cell: ClassCell) -> Iterator[dict[str, Any]]:
    """Yields the errors of what a class learns at every m, for each training set."""
    for number in cell.values:
        setting = SETTINGS[cell.against](number)
        value = VALUES[cell.against](number)
        yield from _of_class(cell, setting, value)


def _of_class(cell: ClassCell, setting: Setting, value: float) -> Iterator[dict[str, Any]]:
    sizes = geometric(FIRST, REACH * setting.crossing, RATIO)
    name = f"random class {cell.against} {value:g}"
    rivals = RandomClass.sampled(
        setting.hypotheses - 1, setting.size, epsilon=setting.epsilon, mass=setting.mass,
        generator=derive(cell.seed, name),
    )  # fmt: skip
    for index in cell.sets:
        noise = derive(cell.seed, name, index)
        x, residual = easy_samples(sizes[-1], setting.size, generator=noise)
        wrong = rivals.excess(x, residual, sizes).amin(1) < 0
        yield {
            "panel": "classes", "learner": CLASS, "against": cell.against, "value": value,
            "size": setting.size, "m": sizes, "seed": index,
            "over_epsilon": torch.where(wrong, 2.0, 0.0),
        }  # fmt: skip


def closed_exponent(sizes: tuple[int, ...]) -> float:
    """Returns the exponent in log |H| of the closed form, which falls to 1 as |H| → ∞."""
    x = torch.tensor([math.log(math.log(count)) for count in sizes])
    y = torch.tensor([math.log(Setting(hypotheses=count).crossing) for count in sizes])
    x = x - x.mean()
    return float(x @ y / (x @ x))
