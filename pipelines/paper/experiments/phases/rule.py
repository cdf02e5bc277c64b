"""A rule that tells from the start whether a training by scores alone will lose mass.

It is one threshold of one quantity, both chosen on half of the map's cells, and judged on cells
that it has not seen: the other half, and those of larger images. Beside it every quantity is
judged there by a threshold of its own.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.tree import DecisionTreeClassifier

from ebflow.randomness import generator
from pipelines.paper.experiments.phases.grid import MAP, STEPS_OF_THE_RULE, WIDE
from pipelines.paper.experiments.phases.nets import CELL
from pipelines.reporting.statistics import Confidence

LEAST, MOST = 1e-6, 1e6
"""Between these are quantities; a net that broke has the most."""

ENDED = ["lost", "end"]
"""What is known of cells besides quantities: how they ended."""


def quantities(nets: pd.DataFrame) -> pd.DataFrame:
    """Returns what a rule may look at, all an element and of validation rows, net by net."""
    early = f"after {STEPS_OF_THE_RULE[1]} steps"
    over = f"over {STEPS_OF_THE_RULE[1]} steps"
    mass, mass_then = (_at(nets, "mass", step) for step in STEPS_OF_THE_RULE)
    nll, nll_then = (
        (_at(nets, "nll", step) - nets["gaussian"]) / nets["width"] for step in STEPS_OF_THE_RULE
    )
    found = {
        "squared latent mean at the start": mass,
        f"squared latent mean {early}": mass_then,
        f"its growth {over}": mass_then / mass.clip(lower=LEAST),
        "NLL above the Gaussian's at the start": nll,
        f"NLL above the Gaussian's {early}": nll_then,
        f"NLL's rise {over}": nll_then - nll,
    }
    return pd.DataFrame(found).fillna(MOST).clip(-MOST, MOST)


def _at(nets: pd.DataFrame, name: str, step: int) -> pd.Series:
    """Returns what was measured of every net at a look."""
    looks = zip(nets[name], nets["steps"], strict=True)
    found = [values[list(steps).index(step)] for values, steps in looks]
    return pd.Series(found, nets.index, float)


def cells(nets: pd.DataFrame) -> pd.DataFrame:
    """Returns the cells that nets are of, over seeds.

    That is what they share, the mean of every quantity and of ``end``, and ``lost``: whether at
    least half of them lost mass.
    """
    known = nets[[*CELL, *ENDED]].join(quantities(nets))
    found = known.groupby(CELL, sort=False).mean().reset_index()
    return found.assign(lost=found["lost"] >= 0.5)


def parted(nets: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Returns the cells that a rule is chosen on, the other half, and those of larger images.

    The halves are random, the same ones at every run.
    """
    found, wide = (cells(nets[nets["part"] == part]) for part in (MAP, WIDE))
    order = np.random.default_rng(generator(0, "phases", "halves").initial_seed())
    first, second = np.array_split(order.permutation(len(found)), 2)
    return found.iloc[first], found.iloc[second], wide


@dataclass(frozen=True)
class Rule:
    """Mass is lost where a quantity is above a threshold, or below it.

    Attributes:
        quantity: A column of ``quantities``.
        threshold: An element.
        above: Whether mass is lost above it.
    """

    quantity: str
    threshold: float
    above: bool

    def told(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Returns how many cells it tells, ``right``, of ``all`` that lost mass, and that held it.

        Its lines are True, of those that lost mass, and False.
        """
        says = (cells[self.quantity] > self.threshold) == self.above
        right = (says == cells["lost"]).groupby(cells["lost"])
        return right.agg(right="sum", all="count").reindex([True, False], fill_value=0)

    def __str__(self) -> str:
        side = "above" if self.above else "below"
        return f"{self.quantity} {side} {self.threshold:.3g}"


def choose(seen: pd.DataFrame, *names: str) -> Rule | None:
    """Returns the rule that parts the cells best, both outcomes counting alike; None without both.

    It is a tree of one node, of scikit-learn.

    Arguments:
        seen: The cells.
        names: Quantities that it may look at; all, if none are told.
    """
    if seen["lost"].nunique() < 2:
        return None
    values = seen[[*names]] if names else seen.drop(columns=[*CELL, *ENDED])
    tree = DecisionTreeClassifier(max_depth=1, class_weight="balanced", random_state=0)
    root = tree.fit(values.to_numpy(), seen["lost"]).tree_
    if root.feature[0] < 0:
        return None
    above = bool(root.value[root.children_right[0]][0, 1] > 0.5)
    return Rule(values.columns[root.feature[0]], float(root.threshold[0]), above)


def choose_each(seen: pd.DataFrame) -> list[Rule]:
    """Returns the best rule of every quantity by itself; none without both outcomes."""
    names = seen.columns.difference([*CELL, *ENDED], sort=False)
    return [one for one in (choose(seen, name) for name in names) if one]


def accuracy(told: pd.DataFrame) -> Confidence | None:
    """Returns the mean of the shares of lost and of held cells that are told; None without both.

    Each share is Agresti and Coull's, two more right and two more wrong: where all are right, the
    interval still has a width.
    """
    if not told["all"].all():
        return None
    count = told["all"] + 4
    share = (told["right"] + 2) / count
    se = math.sqrt((share * (1 - share) / count).sum()) / 2
    return Confidence(float(share.mean()), se, int(told["all"].sum()) - 2)
