"""What the map says: questions whose bounds were fixed before it was measured, and findings."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from numpy.typing import ArrayLike

from pipelines.config.source import overlap
from pipelines.paper.experiments.phases import grid
from pipelines.paper.experiments.phases.nets import LOST, RISEN, pair, where
from pipelines.paper.experiments.phases.rule import Rule, accuracy, choose, choose_each, parted
from pipelines.paper.stages.stack import named
from pipelines.reporting.claims import Check, Conclusion, Measured, Question, decide
from pipelines.reporting.statistics import Confidence, above, student, within

MARGIN = 1.0
"""Nats on digits that matter: a hundredth of the Gaussian's NLL."""

NATS = f"{MARGIN:g} nat"

FAIR, BETTER = 0.8, 0.1
"""A rule that tells at least so much is of use, and so much more would show."""

SPARED = 0.1
"""A share of trainings by which losing mass more or less often matters."""


def conclude(nets: pd.DataFrame) -> Conclusion:
    """Returns findings, claims and checks."""
    chosen, other, wide = parted(nets)
    rule, each = choose(chosen), choose_each(chosen)
    mapped = where(nets, part=grid.MAP)
    measured = [
        *_pairs(nets),
        *(_rarer(mapped, *one) for one in RARER),
        _rule(rule, each, other, "in cells of the map that it has not seen"),
        _rule(rule, each, wide, "at the larger D"),
    ]
    return Conclusion(
        tuple(_findings(nets, rule)),
        tuple(decide(measured)),
        tuple(_checks(nets)),
        (*CHANGES, *_edges(nets)),
    )


def gain(own: pd.DataFrame, theirs: pd.DataFrame | None = None) -> Confidence:
    """Returns how far test NLL is below the Gaussian's, or other nets', paired by seed and row.

    Seeds have test rows of their own, so that the variance over seeds has that over rows in it.
    """
    found = own["gain"].to_numpy()
    return over_splits(found if theirs is None else found - theirs["gain"].to_numpy())


def over_splits(values: ArrayLike) -> Confidence:
    """Returns the mean over seeds, which split the same digits anew."""
    return student(values, overlap=overlap(grid.DIGITS))


EXACT = "exact likelihood of the published net"

GAINS = (
    ("the Gaussian", "centred", f"ends more than {NATS} below the Gaussian", above(MARGIN)),
    ("the Gaussian", "learned", f"ends more than {NATS} below the Gaussian", above(MARGIN)),
    ("exact likelihood", "centred", f"is as good as {EXACT}", within(MARGIN)),
    ("exact likelihood", "learned", f"ends more than {NATS} below {EXACT}", above(MARGIN)),
)
"""What DSM alone is compared with, its activation, what is claimed, and the bounds of it."""

PAIRED = (
    "Paired by seed and by test row; each at the best of four learning rates (exact likelihood: "
    "and of two starts), by validation rows of all seeds, and at its best look by those of its "
    "own. The interval is over seeds, and allows for the overlap of their splits of the same "
    "images."
)


def _pairs(nets: pd.DataFrame) -> Iterator[Measured]:
    for beside, activation, claim, expected in GAINS:
        theirs = None if beside == "the Gaussian" else pair(nets, "published")
        question = Question(
            f"With the {activation} activation, DSM alone {claim}",
            f"test NLL of {beside} less that of DSM alone",
            expected, "nats", "pairs", PAIRED,
        )  # fmt: skip
        yield question, gain(pair(nets, activation), theirs)


SLOW, FAST = grid.RATES

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
     f"{grid.PUBLISHED}, than from the identity without offset",
     {"activation": "published"}, "start", (named(*grid.PUBLISHED), "the published start"),
     (named(*grid.PLAIN), "the identity")),
    (f"With the published activation, scores alone lose mass less often at the rate {SLOW:g} than "
     f"at {FAST:g}",
     {"activation": "published"}, "rate", (SLOW, f"{SLOW:g}"), (FAST, f"{FAST:g}")),
)  # fmt: skip
"""Claims on the map: of which nets, in what they differ, and what would lose mass less often than
what, with its name.
"""

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
    """Asks whether some nets lose mass less often than others, paired by seed.

    The grid has all of both: a difference of shares is the mean of its cells' differences.
    """
    question = Question(
        f"{claim}, by more than {SPARED:g}",
        f"share of trainings that lost mass, {more[1]} less {less[1]}",
        above(SPARED), "", "map", OVER_GRID,
    )  # fmt: skip
    shares = where(nets, **shared).groupby([column, "seed"])["lost"].mean()
    return question, over_splits(shares[more[0]] - shares[less[0]])


def _rule(rule: Rule | None, each: Sequence[Rule], unseen: pd.DataFrame, on: str) -> Measured:
    note = (
        "One threshold of one quantity, chosen on a random half of the map's cells. The mean of "
        "the shares of lost and of held cells that it tells; a coin has 0.5. A cell is lost where "
        "at least half of its seeds are; the interval is over cells."
    )
    told = rule and rule.told(unseen)
    if rule:
        plain = (told["right"] / told["all"]).mean(skipna=False)
        note += (
            " Told: {} of {} lost, {} of {} held".format(*told.to_numpy().flat)
            + f", {plain:.2f} plainly; by Agresti and Coull two more of each share are "
            "right and two more wrong. Each quantity by a threshold of its own: "
            + "; ".join(f"{one} {_told(one, unseen)}" for one in each)
            + "."
        )
    question = Question(
        f"A rule from the first steps tells which trainings lose mass {on}",
        "balanced accuracy", above(FAIR, margin=BETTER), note=note,
    )  # fmt: skip
    return question, accuracy(told) if rule else None


def _told(rule: Rule, cells: pd.DataFrame) -> str:
    """Returns the balanced accuracy of a rule with its interval."""
    found = accuracy(rule.told(cells))
    return "{:.2f} [{:.2f}, {:.2f}]".format(*found.interval()) if found else "not measured"


def _findings(nets: pd.DataFrame, rule: Rule | None) -> Iterator[str]:
    """Yields three sentences."""
    exact, centred, learned = (_below(gain(pair(nets, name)).value) for name in grid.ACTIVATIONS)
    yield (
        "Denoising score matching alone, without determinant, inverse or anchor at any step, "
        f"ends {centred} the Gaussian on digits with a centred activation and {learned} it with a "
        f"learned one; exact likelihood of the published net ends {exact} it."
    )
    shares = 100 * where(nets, part=grid.MAP).groupby(["kind", "activation"])["lost"].mean()
    denoising, sliced = (
        ", ".join(f"{shares[kind, name]:.0f} % {name}" for name in grid.ACTIVATIONS)
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
    chosen, seen, wide = (_told(rule, cells) for cells in parted(nets))
    yield (
        f"The single sign of it that tells most on half of the cells at D = 64 is the {rule} an "
        f"element: it has a balanced accuracy of {chosen} on these, of {seen} on the other half, "
        f"and of {wide} at the larger D."
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
)


def _edges(nets: pd.DataFrame) -> Iterator[str]:
    """Yields where a learning rate beyond those that were tried might be better."""
    for name in grid.ACTIVATIONS:
        best = pair(nets, name).iloc[0]
        tried = where(nets, part=grid.PAIRS, activation=name)["rate"]
        ends = {tried.min(): "least", tried.max(): "largest"}
        if len(ends) > 1 and best["rate"] in ends:
            yield (
                f"Other rates: the best of {best['objective']} with the {name} activation, "
                f"{best['rate']:g}, is the {ends[best['rate']]} that was tried."
            )


def _checks(nets: pd.DataFrame) -> Iterator[Check]:
    """Yields what only a fault could break."""
    first = nets.assign(first=nets["nll"].map(lambda nll: nll[0]))
    alike = first.groupby(["seed", "width", "preprocessing", "activation", "start"])["first"]
    spread = float((alike.max() - alike.min()).max())
    yield Check.of(
        "Nets that start alike have one NLL at the start, whatever trains them",
        "largest difference, nats", spread, within(1e-4),
    )  # fmt: skip
    linear = where(first, preprocessing="whitened", activation="learned", start=named(*grid.PLAIN))
    gap = float(((linear["first"] - linear["gaussian"]).abs() / linear["width"]).max())
    yield Check.of(
        "A learned activation starts as the identity: whitened, the net is the Gaussian",
        "largest difference an element, nats", gap, within(0.05),
        "Up to the whitening's shrinkage of 0.001.",
    )  # fmt: skip
