"""The outcome of the networks of ``phases``, and a rule that predicts it from the first steps.

The order parameter is the squared norm of the latents' mean, which is zero at the truth: half of
it, in nats, is the gain of moving the last offset alone. The rule is one threshold of one
quantity, chosen on half of the map's cells and judged on the other half and on larger images.
"""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from sklearn.tree import DecisionTreeClassifier

from ebflow.randomness import generator
from pipelines.reporting.statistics import Confidence

MAP, WIDE, PAIRS = "map", "wide", "pairs"
"""Parts of the experiment."""

ACTIVATIONS = ("published", "centred", "learned")
SLOW, FAST = 1e-3, 4e-3
"""Learning rates of the map."""

STARTS = tuple(product((1, -1), (0.0, 1.0)))
PUBLISHED, PLAIN = (-1, 1.0), (1, 0.0)
"""The published start, and the identity: sign and offset."""

EARLY = (0, 25)
"""Steps at which the rule's quantities are measured."""

LOST = 0.25
"""Squared latent mean per element above which mass is missing: an eighth of a nat per element."""

RISEN = 1.1
"""Ratio of the last mean to the smallest one. A large mean below this ratio is still falling, from
a distant start: mass is not lost but not yet found."""

GROUP = ["part", "width", "preprocessing", "activation", "objective", "start", "rate"]
"""The columns that a network shares with those of other seeds: a cell of the map."""

ENDS = ["lost", "end"]
"""The columns of a cell's outcome."""

LEAST, MOST = 1e-6, 1e6
"""Bounds of quantities; a network that became non-finite has the upper one."""


def judged(nets: pd.DataFrame) -> pd.DataFrame:
    """Returns networks, as ``stack.train`` measures them, with their outcome.

    ``kind`` is ``dsm``, ``ssm`` or ``ml``. ``end`` is the last squared latent mean per element,
    ``best`` the smallest NLL of a look. ``lost`` networks miss mass at the end, and more than at
    their best look; ``late`` ones miss mass, but less and less.
    """
    end = nets["mass"].map(lambda mass: mass[-1])
    risen = end > RISEN * nets["mass"].map(min)
    ends = {"end": end, "lost": (end > LOST) & risen, "late": (end > LOST) & ~risen}
    return nets.assign(**ends, best=nets["nll"].map(min), kind=nets["objective"].str[:3])


def where(nets: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Returns the networks whose columns have these values."""
    return nets[(nets[[*values]] == pd.Series(values)).all(axis=1)]


def pair(nets: pd.DataFrame, activation: str) -> pd.DataFrame:
    """Returns the networks of a pair by seed, at the start and rate with the best mean NLL."""
    ways = where(nets, part=PAIRS, activation=activation).groupby(["start", "rate"], sort=False)
    best = ways["best"].mean().idxmin()
    return ways.get_group(best).sort_values("seed", kind="stable")


def quantities(nets: pd.DataFrame) -> pd.DataFrame:
    """Returns the quantities of a rule, per element and on validation rows."""
    early, over = f"after {EARLY[1]} steps", f"over {EARLY[1]} steps"
    mass, mass_then = (_at(nets, "mass", step) for step in EARLY)
    nll, nll_then = ((_at(nets, "nll", step) - nets["gaussian"]) / nets["width"] for step in EARLY)
    columns = {
        "squared latent mean at the start": mass,
        f"squared latent mean {early}": mass_then,
        f"its growth {over}": mass_then / mass.clip(lower=LEAST),
        "NLL above the Gaussian's at the start": nll,
        f"NLL above the Gaussian's {early}": nll_then,
        f"NLL's rise {over}": nll_then - nll,
    }
    return pd.DataFrame(columns).fillna(MOST).clip(-MOST, MOST)


def _at(nets: pd.DataFrame, name: str, step: int) -> pd.Series:
    """Returns a measurement of every network at a look."""
    looks = zip(nets[name], nets["steps"], strict=True)
    return pd.Series(
        [values[list(steps).index(step)] for values, steps in looks], nets.index, float
    )


def map_cells(nets: pd.DataFrame) -> pd.DataFrame:
    """Returns means over seeds, cell by cell; ``lost`` is True if half of the seeds lost mass."""
    columns = nets[[*GROUP, *ENDS]].join(quantities(nets))
    means = columns.groupby(GROUP, sort=False).mean().reset_index()
    return means.assign(lost=means["lost"] >= 0.5)


def halves(nets: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Returns the cells to choose a rule on, the other half, and those of larger images.

    The halves are random, the same ones in every run.
    """
    mapped, wide = (map_cells(nets[nets["part"] == part]) for part in (MAP, WIDE))
    order = np.random.default_rng(generator(0, "phases", "halves").initial_seed())
    first, second = np.array_split(order.permutation(len(mapped)), 2)
    return mapped.iloc[first], mapped.iloc[second], wide


@dataclass(frozen=True)
class Rule:
    """Mass is lost if a quantity is above a threshold, or below it."""

    quantity: str
    threshold: float
    above: bool

    def counts(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Returns the cells that it predicts (``right``) of ``all``; index: True if lost."""
        predicted = (cells[self.quantity] > self.threshold) == self.above
        right = (predicted == cells["lost"]).groupby(cells["lost"])
        return right.agg(right="sum", all="count").reindex([True, False], fill_value=0)

    def __str__(self) -> str:
        side = "above" if self.above else "below"
        return f"{self.quantity} {side} {self.threshold:.3g}"


def choose(seen: pd.DataFrame) -> Rule | None:
    """Returns the rule that separates the cells best; None without both outcomes.

    It is a tree of one node by scikit-learn, in which both outcomes count alike.
    """
    if seen["lost"].nunique() < 2:
        return None
    values = seen.drop(columns=[*GROUP, *ENDS])
    tree = DecisionTreeClassifier(max_depth=1, class_weight="balanced", random_state=0)
    root = tree.fit(values.to_numpy(), seen["lost"]).tree_
    if root.feature[0] < 0:
        return None
    above = bool(root.value[root.children_right[0]][0, 1] > 0.5)
    return Rule(values.columns[root.feature[0]], float(root.threshold[0]), above)


def accuracy(counts: pd.DataFrame) -> Confidence | None:
    """Returns the mean share of predicted cells over both outcomes; None without both.

    Each share is Agresti and Coull's, two more right and two more wrong: the interval has a width
    even if all are right.
    """
    if not counts["all"].all():
        return None
    count = counts["all"] + 4
    share = (counts["right"] + 2) / count
    se = math.sqrt((share * (1 - share) / count).sum()) / 2
    return Confidence(float(share.mean()), se, int(counts["all"].sum()) - 2)
