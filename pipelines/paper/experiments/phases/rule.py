"""A rule that tells from the start whether a training by scores alone will lose mass.

It is one threshold of one quantity, both chosen on half of the map's cells, and judged on cells
that it has not seen: the other half, and those of larger images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.tree import DecisionTreeClassifier

from ebflow.inference import Confidence
from ebflow.randomness import generator
from pipelines.paper.experiments.phases.grid import MAP, STEPS_OF_THE_RULE, WIDE
from pipelines.paper.experiments.phases.trained import Trained

LEAST, MOST = 1e-6, 1e6
"""Between these are quantities; a net that broke has the most."""

START, EARLY = STEPS_OF_THE_RULE

QUANTITIES: dict[str, Callable[[Trained], float]] = {
    "squared latent mean at the start": lambda net: net.at(START)[1],
    f"squared latent mean after {EARLY} steps": lambda net: net.at(EARLY)[1],
    f"its growth over {EARLY} steps": lambda net: net.at(EARLY)[1] / max(net.at(START)[1], LEAST),
    "NLL above the Gaussian's at the start": lambda net: net.at(START)[0],
    f"NLL above the Gaussian's after {EARLY} steps": lambda net: net.at(EARLY)[0],
    f"NLL's rise over {EARLY} steps": lambda net: net.at(EARLY)[0] - net.at(START)[0],
}
"""What a rule may look at, all an element and of validation rows."""


@dataclass(frozen=True)
class Cell:
    """The nets of a cell of the grid, over seeds.

    Attributes:
        key: What they share.
        values: The mean of every quantity.
        lost: Whether at least half of them lost mass.
    """

    key: tuple[object, ...]
    values: tuple[float, ...]
    lost: bool


def cells(nets: Sequence[Trained]) -> list[Cell]:
    """Returns the cells that nets are of."""
    groups: dict[tuple[object, ...], list[Trained]] = {}
    for net in nets:
        groups.setdefault(net.cell, []).append(net)
    return [_cell(key, group) for key, group in groups.items()]


def _cell(key: tuple[object, ...], nets: Sequence[Trained]) -> Cell:
    values = np.mean([[_bounded(f(net)) for f in QUANTITIES.values()] for net in nets], axis=0)
    return Cell(key, tuple(values.tolist()), float(np.mean([net.lost for net in nets])) >= 0.5)


def _bounded(value: float) -> float:
    return MOST if math.isnan(value) else min(max(value, -MOST), MOST)


def _halves(found: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
    """Returns two random halves of the cells, the same ones at every run."""
    order = np.random.default_rng(generator(0, "phases", "halves").initial_seed())
    places = order.permutation(len(found))
    return tuple([found[k] for k in part] for part in np.array_split(places, 2))


@dataclass(frozen=True)
class Rule:
    """Mass is lost where a quantity is above a threshold, or below it.

    Attributes:
        quantity: A name in ``QUANTITIES``.
        threshold: An element.
        above: Whether mass is lost above it.
    """

    quantity: str
    threshold: float
    above: bool

    def __call__(self, cell: Cell) -> bool:
        """Whether the rule says that a cell loses mass."""
        return (self.value(cell) > self.threshold) == self.above

    def value(self, cell: Cell) -> float:
        """Returns the quantity of a cell."""
        return cell.values[list(QUANTITIES).index(self.quantity)]

    def __str__(self) -> str:
        side = "above" if self.above else "below"
        return f"{self.quantity} {side} {self.threshold:.3g}"


def choose(seen: Sequence[Cell]) -> Rule | None:
    """Returns the rule that parts the cells best, both outcomes counting alike; None without both.

    It is a tree of one node, of scikit-learn.
    """
    outcomes = [cell.lost for cell in seen]
    if len(set(outcomes)) < 2:
        return None
    tree = DecisionTreeClassifier(max_depth=1, class_weight="balanced", random_state=0)
    tree.fit([cell.values for cell in seen], outcomes)
    root = tree.tree_
    if root.feature[0] < 0:
        return None
    above = bool(root.value[root.children_right[0]][0, 1] > 0.5)
    return Rule(list(QUANTITIES)[root.feature[0]], float(root.threshold[0]), above)


@dataclass(frozen=True)
class Judged:
    """How right a rule is on cells.

    Attributes:
        lost: Of cells that lost mass, those of which it says so, and all.
        held: Of the others, those of which it says so, and all.
    """

    lost: tuple[int, int]
    held: tuple[int, int]

    @classmethod
    def of(cls, rule: Rule, found: Sequence[Cell]) -> "Judged":
        """Judges a rule by cells."""
        return cls(*(_counted(rule, found, lost) for lost in (True, False)))

    @property
    def plain(self) -> float:
        """The mean of both shares as they are; NaN without both outcomes."""
        parts = (self.lost, self.held)
        return sum(right / count if count else math.nan for right, count in parts) / 2


def _counted(rule: Rule, found: Sequence[Cell], lost: bool) -> tuple[int, int]:
    right = [rule(cell) == lost for cell in found if cell.lost == lost]
    return sum(right), len(right)


def accuracy(judged: Judged) -> Confidence | None:
    """Returns the mean of the shares of lost and of held cells that are told; None without both.

    Each share is Agresti and Coull's, two more right and two more wrong: where all are right, the
    interval still has a width.
    """
    if not (judged.lost[1] and judged.held[1]):
        return None
    shares = [_share(*counts) for counts in (judged.lost, judged.held)]
    value = sum(share for share, _ in shares) / 2
    se = math.sqrt(sum(variance for _, variance in shares)) / 2
    return Confidence(value, se, judged.lost[1] + judged.held[1] - 2)


def _share(right: int, count: int) -> tuple[float, float]:
    share = (right + 2) / (count + 4)
    return share, share * (1 - share) / (count + 4)


def parted(nets: Sequence[Trained]) -> tuple[list[Cell], list[Cell], list[Cell]]:
    """Returns the cells that a rule is chosen on, the other half, and those of larger images."""
    first, second = _halves(cells([net for net in nets if net.part == MAP]))
    return first, second, cells([net for net in nets if net.part == WIDE])
