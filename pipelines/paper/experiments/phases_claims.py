"""Claims about the networks of ``phases``; the bounds of all claims were fixed before the runs."""

from collections.abc import Iterator, Mapping

import pandas as pd
from numpy.typing import ArrayLike

from pipelines.config import DataConfig
from pipelines.config.source import overlap
from pipelines.paper.experiments import phases_rule as rules
from pipelines.paper.experiments.phases_rule import (
    ACTIVATIONS,
    FAST,
    PLAIN,
    PUBLISHED,
    SLOW,
    Rule,
    pair,
    where,
)
from pipelines.paper.stack import start_name
from pipelines.reporting.claims import Check, Conclusion, Measured, Question, decide
from pipelines.reporting.statistics import Confidence, above, student, within

DIGITS = DataConfig(source="digits")

MARGIN = 1.0
"""Nats on digits that matter: a hundredth of the Gaussian's NLL."""

FAIR, BETTER = 0.8, 0.1
"""Accuracy from which a rule is useful, and the margin for its power."""

SPARED = 0.1
"""Difference of shares of lost trainings that matters."""


def conclude(nets: pd.DataFrame) -> Conclusion:
    """Returns findings, claims and checks."""
    chosen, other, wide = rules.halves(nets)
    rule = rules.choose(chosen)
    measured = [
        *_pair_claims(nets),
        *(_rarer(where(nets, part=rules.MAP), *one) for one in RARER),
        _rule_claim(rule, other, "in cells of the map that it has not seen"),
        _rule_claim(rule, wide, "at the larger D"),
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


def _rule_claim(rule: Rule | None, unseen: pd.DataFrame, on: str) -> Measured:
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
            + f", {plain:.2f} plainly; by Agresti and Coull two more of each share are right and "
            "two more wrong."
        )
    question = Question(
        f"A rule from the first steps tells which trainings lose mass {on}",
        "balanced accuracy", above(FAIR, margin=BETTER), note=note,
    )  # fmt: skip
    return question, rules.accuracy(counts) if rule else None


def _estimate(rule: Rule, cells: pd.DataFrame) -> str:
    """Returns the balanced accuracy of a rule with its interval."""
    mean = rules.accuracy(rule.counts(cells))
    return "{:.2f} [{:.2f}, {:.2f}]".format(*mean.interval()) if mean else "not measured"


def _findings(nets: pd.DataFrame, rule: Rule | None) -> Iterator[str]:
    """Yields three sentences."""
    exact, centred, learned = (_below(gain(pair(nets, name)).value) for name in ACTIVATIONS)
    yield (
        "Denoising score matching alone, without determinant, inverse or anchor at any step, "
        f"ends {centred} the Gaussian on digits with a centred activation and {learned} it with a "
        f"learned one; exact likelihood of the published net ends {exact} it."
    )
    shares = 100 * where(nets, part=rules.MAP).groupby(["kind", "activation"])["lost"].mean()
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
    chosen, other, wide = (_estimate(rule, cells) for cells in rules.halves(nets))
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
    f"latent mean ends above {rules.LOST:g} an element and {rules.RISEN:g} times its least.",
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
