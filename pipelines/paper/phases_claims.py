"""Claims about the networks of ``phases``, and a rule that predicts which of them lose mass.

The order parameter is the squared norm of the latents' mean, which is zero at the truth: half of
it, in nats, is the gain of moving the last offset alone. The rule is one threshold of one quantity
of the first steps, chosen on half of the map's cells and judged on the other half. The bounds of
all claims were fixed before the runs.
"""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.tree import DecisionTreeClassifier

from ebflow.randomness import generator
from pipelines.config import DataConfig
from pipelines.config.source import overlap
from pipelines.paper.stack import start_name
from pipelines.reporting.claims import Conclusion, Measured, Question, decide
from pipelines.reporting.statistics import Confidence, above, student, within

MAP, PAIRS = "map", "pairs"
"""Parts of the experiment."""

ACTIVATIONS = ("published", "centred", "learned")
PUBLISHED, PLAIN = (-1, 1.0), (1, 0.0)
"""The published start, and the identity: sign and offset."""

SLOW, FAST = 1e-3, 4e-3
"""Learning rates of the map."""

DIGITS = DataConfig(source="digits")

EARLY = (0, 25)
"""Steps at which the rule's quantities are measured."""

LOST = 0.25
"""Squared latent mean per element above which mass is missing: an eighth of a nat per element."""

RISEN = 1.1
"""Ratio of the last mean to the smallest one. A large mean below this ratio is still falling, from
a distant start: mass is not lost but not yet found."""

GROUP = ["preprocessing", "activation", "objective", "start", "rate"]
"""The columns that a network shares with those of other seeds: a cell of the map."""

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
    """Returns the quantities of a rule, per element and on validation rows.

    All networks were measured at the same steps.
    """
    early, over = f"after {EARLY[1]} steps", f"over {EARLY[1]} steps"
    looks = [list(nets["steps"].iloc[0]).index(step) for step in EARLY]
    mass, mass_then = np.stack(nets["mass"])[:, looks].T
    gaussian, width = nets["gaussian"].to_numpy(), nets["width"].to_numpy()
    nll, nll_then = (np.stack(nets["nll"])[:, looks].T - gaussian) / width
    columns = {
        "squared latent mean at the start": mass,
        f"squared latent mean {early}": mass_then,
        f"its growth {over}": mass_then / np.maximum(mass, LEAST),
        "NLL above the Gaussian's at the start": nll,
        f"NLL above the Gaussian's {early}": nll_then,
        f"NLL's rise {over}": nll_then - nll,
    }
    return pd.DataFrame(columns, nets.index).fillna(MOST).clip(-MOST, MOST)


def map_cells(nets: pd.DataFrame) -> pd.DataFrame:
    """Returns the mean quantities over seeds, cell by cell, indexed by ``lost``.

    ``lost`` is True if half of the seeds lost mass.
    """
    columns = nets[[*GROUP, "lost"]].join(quantities(nets))
    means = columns.groupby(GROUP, sort=False).mean()
    return means.set_index(means.pop("lost") >= 0.5)


def halves(nets: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the cells of the map to choose a rule on, and the other half.

    The halves are random, the same ones in every run.
    """
    cells = map_cells(where(nets, part=MAP))
    order = np.random.default_rng(generator(0, "phases", "halves").initial_seed())
    first, second = np.array_split(order.permutation(len(cells)), 2)
    return cells.iloc[first], cells.iloc[second]


def rule(cells: pd.DataFrame) -> DecisionTreeClassifier:
    """Returns the rule that separates the cells best: a tree of one node.

    Both outcomes count alike. There is no threshold in it if all cells have one outcome.
    """
    tree = DecisionTreeClassifier(max_depth=1, class_weight="balanced", random_state=0)
    return tree.fit(cells, cells.index)


def accuracy(predicted: np.ndarray, lost: np.ndarray) -> Confidence | None:
    """Returns the mean share of cells predicted right over both outcomes; None without both.

    Each share is Agresti and Coull's, two more right and two more wrong: the interval has a width
    even if all are right.
    """
    right = pd.Series(predicted == lost).groupby(lost).agg(["sum", "size"])
    if len(right) < 2:
        return None
    count = right["size"] + 4
    share = (right["sum"] + 2) / count
    se = math.sqrt((share * (1 - share) / count).sum()) / 2
    return Confidence(float(share.mean()), se, int(right["size"].sum()) - 2)


MARGIN = 1.0
"""Nats on digits that matter: a hundredth of the Gaussian's NLL."""

SPARED = 0.1
"""Difference of shares of lost trainings that matters."""

FAIR = 0.8
"""Accuracy from which a rule is useful."""

BELOW = f"ends more than {MARGIN:g} nat below"
EXACT = "exact likelihood of the published net"
LEADS = (
    ("centred", None, f"{BELOW} the Gaussian", above(MARGIN)),
    ("learned", None, f"{BELOW} the Gaussian", above(MARGIN)),
    ("centred", "published", f"is as good as {EXACT}", within(MARGIN)),
    ("learned", "published", f"{BELOW} {EXACT}", above(MARGIN)),
)
"""Claims on the pairs: activation, that of the opponent (None: the Gaussian), claim and region."""

SHARES = (
    ("By denoising, the centred activation loses mass less often than the published one",
     {"kind": "dsm"}, "activation", "centred", "published"),
    ("By denoising, the learned activation loses mass less often than the published one",
     {"kind": "dsm"}, "activation", "learned", "published"),
    ("With the learned activation, denoising loses mass less often than sliced score matching",
     {"activation": "learned"}, "kind", "dsm", "ssm"),
    ("With the published activation, scores alone lose mass less often from the published start "
     "than from the identity without offset",
     {"activation": "published"}, "start", start_name(*PUBLISHED), start_name(*PLAIN)),
    (f"With the published activation, scores alone lose mass less often at the rate {SLOW:g} than "
     f"at {FAST:g}",
     {"activation": "published"}, "rate", SLOW, FAST),
)  # fmt: skip
"""Claims on the map: text, the networks, the column in which they differ, and two of its values:
the one that should lose mass less often, and the other."""

OVER_SEEDS = (
    "Paired by seed, pairs at their best learning rate and look by validation rows. The interval "
    "is over seeds, and allows for the overlap of their splits of the same images."
)


def conclude(nets: pd.DataFrame) -> Conclusion:
    """Returns the claims on pairs, map and rule."""
    measured = [*_leads(nets), *_shares(where(nets, part=MAP)), _predicted(nets)]
    return Conclusion(claims=tuple(decide(measured)))


def _leads(nets: pd.DataFrame) -> Iterator[Measured]:
    for activation, opponent, claim, region in LEADS:
        text = f"With the {activation} activation, DSM alone {claim}"
        question = Question(text, "its lead in test NLL", region, "nats", note=OVER_SEEDS)
        yield question, lead(nets, activation, opponent)


def lead(nets: pd.DataFrame, activation: str, opponent: str | None = None) -> Confidence:
    """Returns the lead of a pair in test NLL over the Gaussian, or another one, paired by seed.

    Each seed has its own test rows, so that the variance over seeds includes that over rows.
    """
    gain = pair(nets, activation)["gain"].to_numpy()
    return _over_splits(gain - pair(nets, opponent)["gain"].to_numpy() if opponent else gain)


def _over_splits(values: ArrayLike) -> Confidence:
    """Returns the mean over seeds, each of which splits the same digits anew."""
    return student(values, overlap=overlap(DIGITS))


def _shares(nets: pd.DataFrame) -> Iterator[Measured]:
    """Yields differences of shares of lost networks, which are means over the map's cells."""
    for claim, shared, column, less, more in SHARES:
        quantity = f"share of trainings that lost mass, {column} {more} less {less}"
        shares = where(nets, **shared).groupby([column, "seed"])["lost"].mean()
        text = f"{claim}, by more than {SPARED:g}"
        question = Question(text, quantity, above(SPARED), figure=MAP, note=OVER_SEEDS)
        yield question, _over_splits(shares[more] - shares[less])


def _predicted(nets: pd.DataFrame) -> Measured:
    chosen, unseen = halves(nets)
    tree, text = rule(chosen), "none, all cells have one outcome"
    found = None
    if tree.get_depth():
        text = f"{chosen.columns[tree.tree_.feature[0]]}, at {tree.tree_.threshold[0]:.3g}"
        found = accuracy(tree.predict(unseen), unseen.index.to_numpy())
    question = Question(
        "A rule from the first steps tells which trainings lose mass, in cells of the map that it "
        "has not seen",
        "balanced accuracy",
        above(FAIR),
        note=f"The rule: {text}. One threshold of one quantity, chosen on a random half of the "
        "map's cells; a coin has 0.5. A cell is lost if at least half of its seeds are; the "
        "interval is over cells.",
    )
    return question, found
