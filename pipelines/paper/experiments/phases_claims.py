"""Claims about the networks of ``phases``: which lose mass, from what, and a rule to predict it.

The order parameter is the squared norm of the latents' mean, which is zero at the truth: half of
it, in nats, is the gain of moving the last offset alone. The rule is one threshold of one
quantity of the first steps, chosen on half of the map's cells and judged on the other half and on
larger images. The bounds of all claims were fixed before the runs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.tree import DecisionTreeClassifier

from ebflow.randomness import generator
from pipelines.config import DataConfig
from pipelines.config.source import overlap
from pipelines.paper.stack import start_name
from pipelines.reporting.claims import Check, Conclusion, Measured, Question, decide
from pipelines.reporting.statistics import Confidence, above, student, within

MAP, WIDE, PAIRS = "map", "wide", "pairs"
"""Parts of the experiment."""

ACTIVATIONS = ("published", "centred", "learned")
DIGITS = DataConfig(source="digits")
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

MARGIN = 1.0
"""Nats on digits that matter: a hundredth of the Gaussian's NLL."""

FAIR, BETTER = 0.8, 0.1
"""Accuracy from which a rule is useful, and the margin for its power."""

SPARED = 0.1
"""Difference of shares of lost trainings that matters."""


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
    """Mass is lost if a quantity is above a threshold, or below it.

    Attributes:
        quantity: A column of ``quantities``.
        threshold: The threshold, per element.
        above: True if mass is lost above it.
    """

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


def choose(seen: pd.DataFrame, *names: str) -> Rule | None:
    """Returns the rule that separates the cells best; None without both outcomes.

    It is a tree of one node by scikit-learn, in which both outcomes count alike.

    Arguments:
        seen: The cells.
        names: The quantities to choose from; default: all.
    """
    if seen["lost"].nunique() < 2:
        return None
    values = seen[[*names]] if names else seen.drop(columns=[*GROUP, *ENDS])
    tree = DecisionTreeClassifier(max_depth=1, class_weight="balanced", random_state=0)
    root = tree.fit(values.to_numpy(), seen["lost"]).tree_
    if root.feature[0] < 0:
        return None
    above = bool(root.value[root.children_right[0]][0, 1] > 0.5)
    return Rule(values.columns[root.feature[0]], float(root.threshold[0]), above)


def choose_each(seen: pd.DataFrame) -> list[Rule]:
    """Returns the best rule of every quantity by itself; none without both outcomes."""
    names = seen.columns.difference([*GROUP, *ENDS], sort=False)
    return [rule for rule in (choose(seen, name) for name in names) if rule]


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


def conclude(nets: pd.DataFrame) -> Conclusion:
    """Returns findings, claims and checks."""
    chosen, other, wide = halves(nets)
    rule, each = choose(chosen), choose_each(chosen)
    measured = [
        *_pair_claims(nets),
        *(_rarer(where(nets, part=MAP), *one) for one in RARER),
        _rule_claim(rule, each, other, "in cells of the map that it has not seen"),
        _rule_claim(rule, each, wide, "at the larger D"),
    ]
    findings, checks = tuple(_findings(nets, rule)), tuple(_checks(nets))
    return Conclusion(findings, tuple(decide(measured)), checks, CHANGES)


def gain(own: pd.DataFrame, theirs: pd.DataFrame | None = None) -> Confidence:
    """Returns test NLL below the Gaussian's, or below other networks', paired by seed and row.

    Each seed has its own test rows, so that the variance over seeds includes that over rows.
    """
    values = own["gain"].to_numpy()
    return _over_splits(values if theirs is None else values - theirs["gain"].to_numpy())


def _over_splits(values: ArrayLike) -> Confidence:
    """Returns the mean over seeds, each of which splits the same digits anew."""
    return student(values, overlap=overlap(DIGITS))


EXACT = "exact likelihood of the published net"
NATS = f"{MARGIN:g} nat"

GAINS = (
    ("the Gaussian", "centred", f"ends more than {NATS} below the Gaussian", above(MARGIN)),
    ("the Gaussian", "learned", f"ends more than {NATS} below the Gaussian", above(MARGIN)),
    ("exact likelihood", "centred", f"is as good as {EXACT}", within(MARGIN)),
    ("exact likelihood", "learned", f"ends more than {NATS} below {EXACT}", above(MARGIN)),
)
"""The opponent of DSM alone, its activation, the claim, and its region."""

PAIRED = (
    "Paired by seed and by test row; each at the best of four learning rates (exact likelihood: "
    "and of two starts), by validation rows of all seeds, and at its best look by those of its "
    "own. The interval is over seeds, and allows for the overlap of their splits of the same "
    "images."
)


def _pair_claims(nets: pd.DataFrame) -> Iterator[Measured]:
    for opponent, activation, claim, region in GAINS:
        theirs = None if opponent == "the Gaussian" else pair(nets, "published")
        question = Question(
            f"With the {activation} activation, DSM alone {claim}",
            f"test NLL of {opponent} less that of DSM alone",
            region, "nats", "pairs", PAIRED,
        )  # fmt: skip
        yield question, gain(pair(nets, activation), theirs)


RARER = (
    ("By denoising, the centred activation loses mass less often than the published one",
     {"kind": "dsm"}, "activation", ("centred", "the centred activation"),
     ("published", "the published one")),
    ("By denoising, the learned activation loses mass less often than the published one",
     {"kind": "dsm"}, "activation", ("learned", "the learned activation"),
     ("published", "the published one")),
    ("With the learned activation, denoising loses mass less often than sliced score matching",
     {"activation": "learned"}, "kind", ("dsm", "denoising"), ("ssm", "sliced")),
    ("With the published activation, scores alone lose mass less often from the published start, "
     f"{PUBLISHED}, than from the identity without offset",
     {"activation": "published"}, "start", (start_name(*PUBLISHED), "the published start"),
     (start_name(*PLAIN), "the identity")),
    (f"With the published activation, scores alone lose mass less often at the rate {SLOW:g} than "
     f"at {FAST:g}",
     {"activation": "published"}, "rate", (SLOW, f"{SLOW:g}"), (FAST, f"{FAST:g}")),
)  # fmt: skip
"""Claims on the map: text, the networks, the column in which they differ, and two of its values
with their names: the one that should lose mass less often, and the other."""

OVER_GRID = (
    "The mean over this grid's cells, a seed; the interval is over seeds, and allows for the "
    "overlap of their splits of the same images."
)

Named = tuple[object, str]


def _rarer(
    nets: pd.DataFrame,
    claim: str,
    shared: Mapping[str, str],
    column: str,
    less: Named,
    more: Named,
) -> Measured:
    """Returns the difference of shares of lost networks, paired by seed.

    The grid has all of both: a difference of shares is the mean of its cells' differences.
    """
    question = Question(
        f"{claim}, by more than {SPARED:g}",
        f"share of trainings that lost mass, {more[1]} less {less[1]}",
        above(SPARED), "", "map", OVER_GRID,
    )  # fmt: skip
    shares = where(nets, **shared).groupby([column, "seed"])["lost"].mean()
    return question, _over_splits(shares[more[0]] - shares[less[0]])


def _rule_claim(
    rule: Rule | None, each: Sequence[Rule], unseen: pd.DataFrame, on: str
) -> Measured:
    note = (
        "One threshold of one quantity, chosen on a random half of the map's cells. The mean of "
        "the shares of lost and of held cells that it predicts; a coin has 0.5. A cell is lost "
        "if at least half of its seeds are; the interval is over cells."
    )
    if rule:
        counts = rule.counts(unseen)
        plain = (counts["right"] / counts["all"]).mean(skipna=False)
        note += (
            " Predicted: {} of {} lost, {} of {} held".format(*counts.to_numpy().flat)
            + f", {plain:.2f} plainly; by Agresti and Coull two more of each share are "
            "right and two more wrong. Each quantity by a threshold of its own: "
            + "; ".join(f"{one} {_estimate(one, unseen)}" for one in each)
            + "."
        )
    question = Question(
        f"A rule from the first steps tells which trainings lose mass {on}",
        "balanced accuracy", above(FAIR, margin=BETTER), note=note,
    )  # fmt: skip
    return question, accuracy(counts) if rule else None


def _estimate(rule: Rule, cells: pd.DataFrame) -> str:
    """Returns the balanced accuracy of a rule with its interval."""
    mean = accuracy(rule.counts(cells))
    return "{:.2f} [{:.2f}, {:.2f}]".format(*mean.interval()) if mean else "not measured"


def _findings(nets: pd.DataFrame, rule: Rule | None) -> Iterator[str]:
    """Yields three sentences."""
    exact, centred, learned = (_below(gain(pair(nets, name)).value) for name in ACTIVATIONS)
    yield (
        "Denoising score matching alone, without determinant, inverse or anchor at any step, "
        f"ends {centred} the Gaussian on digits with a centred activation and {learned} it with a "
        f"learned one; exact likelihood of the published net ends {exact} it."
    )
    shares = 100 * where(nets, part=MAP).groupby(["kind", "activation"])["lost"].mean()
    denoising, sliced = (
        ", ".join(f"{shares[kind, name]:.0f} % {name}" for name in ACTIVATIONS)
        for kind in ("dsm", "ssm")
    )
    yield (
        "Over starts, rates, preprocessing and seeds on digits, denoising at three noises loses "
        f"mass in {denoising} of the trainings by their activation, and sliced score matching in "
        f"{sliced}."
    )
    if rule is None:
        yield "Too few trainings lost mass, or too few kept it, for a rule."
        return
    chosen, other, wide = (_estimate(rule, cells) for cells in halves(nets))
    yield (
        f"The single quantity that predicts it best on half of the cells at D = 64 is the {rule} "
        f"per element: it has a balanced accuracy of {chosen} on these, of {other} on the other "
        f"half, and of {wide} at the larger D."
    )


def _below(gain: float) -> str:
    return f"{abs(gain):.1f} nats {'below' if gain > 0 else 'above'}"


CHANGES = (
    "Longer trainings: mass that is lost slowly, at small rates, is not lost yet.",
    "Other data, deeper nets or convolutions: none were tried, and all seeds split the same "
    "digits.",
    f"Another order parameter, or another bound of it: mass counts as lost where the squared "
    f"latent mean ends above {LOST:g} an element and {RISEN:g} times its least.",
    "At the larger D one seed, one preprocessing and two starts were tried.",
    "Other rates, if the best of a pair is the smallest or the largest of four.",
)


def _checks(nets: pd.DataFrame) -> Iterator[Check]:
    """Yields checks that only a fault of the program could fail."""
    first = nets.assign(first=nets["nll"].map(lambda nll: nll[0]))
    alike = first.groupby(["seed", "width", "preprocessing", "activation", "start"])["first"]
    yield Check.of(
        "Nets that start alike have one NLL at the start, whatever trains them",
        "largest difference, nats", float((alike.max() - alike.min()).max()), within(1e-4),
    )  # fmt: skip
    same = {"preprocessing": "whitened", "activation": "learned", "start": start_name(*PLAIN)}
    linear = where(first, **same)
    gap = float(((linear["first"] - linear["gaussian"]).abs() / linear["width"]).max())
    yield Check.of(
        "A learned activation starts as the identity: whitened, the net is the Gaussian",
        "largest difference an element, nats", gap, within(0.05),
        "Up to the whitening's shrinkage of 0.001.",
    )  # fmt: skip
