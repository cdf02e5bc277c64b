"""What the map says: questions whose bounds were fixed before it was measured, and findings."""

from collections.abc import Iterator, Sequence

import pandas as pd
from numpy.typing import ArrayLike

from ebflow.inference import Confidence, above, student, within
from pipelines.config.source import counted, opened
from pipelines.paper.experiments.phases.grid import (
    ACTIVATIONS,
    ALONE,
    DIGITS,
    MAP,
    PAIRS,
    PLAIN,
    PUBLISHED,
    RATES,
)
from pipelines.paper.experiments.phases.nets import LOST, RISEN, START
from pipelines.paper.experiments.phases.rule import (
    Judged,
    Rule,
    accuracy,
    choose,
    choose_each,
    parted,
)
from pipelines.reporting.claims import Check, Conclusion, Question, decide

MARGIN = 1.0
"""Nats on digits that matter: a hundredth of the Gaussian's NLL."""

NATS = f"{MARGIN:g} nat"

FAIR, BETTER = 0.8, 0.1
"""A rule that tells at least so much is of use, and so much more would show."""

SPARED = 0.1
"""A share of trainings by which losing mass more or less often matters."""

Measured = tuple[Question, Confidence | None]


def conclude(nets: pd.DataFrame) -> Conclusion:
    """Returns findings, claims and checks."""
    chosen, other, wide = parted(nets)
    rule = choose(chosen)
    measured = [
        *_pairs(nets),
        *_spared(nets[nets["part"] == MAP]),
        _rule(rule, choose_each(chosen), other, "map"),
        _rule(rule, choose_each(chosen), wide, "wide"),
    ]
    return Conclusion(
        tuple(_findings(nets, rule)),
        tuple(decide(measured)),
        tuple(_checks(nets)),
        (*CHANGES, *_edges(nets)),
    )


def pair(nets: pd.DataFrame, activation: str) -> pd.DataFrame:
    """Returns the nets of a pair by seed, at their best start and rate.

    Those have the least mean validation NLL at best looks.
    """
    found = nets[(nets["part"] == PAIRS) & (nets["activation"] == activation)]
    ways = found.groupby([*START, "rate"], sort=False)
    best = ways["best"].mean().idxmin()
    return ways.get_group(best).sort_values("seed", kind="stable")


def gain(own: pd.DataFrame, theirs: pd.DataFrame | None = None) -> Confidence:
    """Returns how far test NLL is below the Gaussian's, or other nets', paired by seed and row.

    Seeds have test rows of their own, so that the variance over seeds has that over rows in it.
    """
    found = own["gain"].to_numpy()
    return over_splits(found if theirs is None else found - theirs["gain"].to_numpy())


def over_splits(values: ArrayLike) -> Confidence:
    """Returns the mean over seeds, which split the same digits anew."""
    counts = counted(opened(DIGITS), DIGITS)
    return student(values, overlap=counts.test / counts.train)


def _pairs(nets: pd.DataFrame) -> Iterator[Measured]:
    exact = pair(nets, "published")
    found = {name: pair(nets, name) for name in ALONE}
    quantity = "test NLL of the Gaussian less that of DSM alone"
    for name, own in found.items():
        question = Question(
            f"With the {name} activation, DSM alone ends more than {NATS} below the Gaussian",
            quantity, above(MARGIN), "nats", "pairs", PAIRED,
        )  # fmt: skip
        yield question, gain(own)
    quantity = "test NLL of exact likelihood less that of DSM alone"
    yield Question(
        "With the centred activation, DSM alone is as good as exact likelihood of the published "
        "net", quantity, within(MARGIN), "nats", "pairs", PAIRED,
    ), gain(found["centred"], exact)  # fmt: skip
    yield Question(
        f"With the learned activation, DSM alone ends more than {NATS} below exact likelihood of "
        "the published net", quantity, above(MARGIN), "nats", "pairs", PAIRED,
    ), gain(found["learned"], exact)  # fmt: skip


PAIRED = (
    "Paired by seed and by test row; each at the best of four learning rates (exact likelihood: "
    "and of two starts), by validation rows of all seeds, and at its best look by those of its "
    "own. The interval is over seeds, and allows for the overlap of their splits of the same "
    "images."
)


def _spared(nets: pd.DataFrame) -> Iterator[Measured]:
    """Asks which activations, objectives, starts and rates of the map spare a loss of mass."""
    for name in ALONE:
        yield _rarer(
            f"By denoising, the {name} activation loses mass less often than the published one",
            (f"the {name} activation", _of(nets, name, DENOISING)),
            ("the published one", _of(nets, "published", DENOISING)),
        )
    yield _rarer(
        "With the learned activation, denoising loses mass less often than sliced score matching",
        ("denoising", _of(nets, "learned", DENOISING)),
        ("sliced", _of(nets, "learned", SLICED)),
    )
    published = _of(nets, "published")
    yield _rarer(
        "With the published activation, scores alone lose mass less often from the published "
        f"start, {PUBLISHED}, than from the identity without offset",
        ("the published start", _from(published, PUBLISHED)),
        ("the identity", _from(published, PLAIN)),
    )
    slow, fast = RATES
    yield _rarer(
        f"With the published activation, scores alone lose mass less often at the rate {slow:g} "
        f"than at {fast:g}",
        (f"{slow:g}", published[published["rate"] == slow]),
        (f"{fast:g}", published[published["rate"] == fast]),
    )


Named = tuple[str, pd.DataFrame]


def _rarer(claim: str, less: Named, more: Named) -> Measured:
    """Asks whether some nets lose mass less often than others, paired by seed.

    The grid has all of both: a difference of shares is the mean of its cells' differences.
    """
    question = Question(
        f"{claim}, by more than {SPARED:g}",
        f"share of trainings that lost mass, {more[0]} less {less[0]}",
        above(SPARED), "", "map", OVER_GRID,
    )  # fmt: skip
    first, second = (nets.groupby("seed")["lost"].mean() for nets in (more[1], less[1]))
    return question, over_splits(first - second)


OVER_GRID = (
    "The mean over this grid's cells, a seed; the interval is over seeds, and allows for the "
    "overlap of their splits of the same images."
)

DENOISING, SLICED = "dsm", "ssm"
"""How the names of objectives begin."""


def _of(nets: pd.DataFrame, activation: str, kind: str = "") -> pd.DataFrame:
    found = nets["objective"].str.startswith(kind)
    return nets[found & (nets["activation"] == activation)]


def _from(nets: pd.DataFrame, start: tuple[int, float]) -> pd.DataFrame:
    return nets[(nets["sign"] == start[0]) & (nets["bias"] == start[1])]


def _rule(rule: Rule | None, each: Sequence[Rule], unseen: pd.DataFrame, where: str) -> Measured:
    judged = Judged.of(rule, unseen) if rule else None
    on = {"map": "in cells of the map that it has not seen", "wide": "at the larger D"}[where]
    note = (
        "One threshold of one quantity, chosen on a random half of the map's cells. The mean of "
        "the shares of lost and of held cells that it tells; a coin has 0.5. A cell is lost where "
        "at least half of its seeds are; the interval is over cells."
    )
    if judged:
        note += (
            " Told: {} of {} lost, {} of {} held".format(*judged.lost, *judged.held)
            + f", {judged.plain:.2f} plainly; by Agresti and Coull two more of each share are "
            "right and two more wrong. Each quantity by a threshold of its own: "
            + "; ".join(f"{one} {_told(one, unseen)}" for one in each)
            + "."
        )
    question = Question(
        f"A rule from the first steps tells which trainings lose mass {on}",
        "balanced accuracy", above(FAIR, margin=BETTER), "", "rule", note,
    )  # fmt: skip
    return question, accuracy(judged) if judged else None


def _told(rule: Rule, cells: pd.DataFrame) -> str:
    """Returns the balanced accuracy of a rule with its interval."""
    found = accuracy(Judged.of(rule, cells))
    return "{:.2f} [{:.2f}, {:.2f}]".format(*found.interval()) if found else "not measured"


def _findings(nets: pd.DataFrame, rule: Rule | None) -> Iterator[str]:
    """Yields three sentences."""
    exact, centred, learned = (gain(pair(nets, name)) for name in ACTIVATIONS)
    yield (
        "Denoising score matching alone, without determinant, inverse or anchor at any step, "
        f"ends {_below(centred.value)} the Gaussian on digits with a centred activation and "
        f"{_below(learned.value)} it with a learned one; exact likelihood of the published net "
        f"ends {_below(exact.value)} it."
    )
    yield _shares(nets[nets["part"] == MAP])
    if rule is None:
        yield "Too few trainings lost mass, or too few kept it, for a rule."
        return
    chosen, seen, wide = (_told(rule, cells) for cells in parted(nets))
    yield (
        f"The single sign of it that tells most on half of the cells at D = 64 is the {rule} an "
        f"element: it has a balanced accuracy of {chosen} on these, of {seen} on the other half, "
        f"and of {wide} at the larger D."
    )


def _shares(nets: pd.DataFrame) -> str:
    """Returns how often mass is lost, by activation and kind of objective."""
    shares = {
        kind: ", ".join(
            f"{100 * _of(nets, name, kind)['lost'].mean():.0f} % {name}" for name in ACTIVATIONS
        )
        for kind in (DENOISING, SLICED)
    }
    return (
        "Over starts, rates, preprocessing and seeds on digits, denoising at three noises loses "
        "mass in "
        f"{shares[DENOISING]} of the trainings by their activation, and sliced score matching in "
        f"{shares[SLICED]}."
    )


def _below(gain: float) -> str:
    return f"{abs(gain):.1f} nats {'below' if gain > 0 else 'above'}"


CHANGES = (
    "Longer trainings: mass that is lost slowly, at small rates, is not lost yet.",
    "Other data, deeper nets or convolutions: none were tried, and all seeds split the same "
    "digits.",
    f"Another order parameter, or another bound of it: mass counts as lost where the squared "
    f"latent mean ends above {LOST:g} an element and {RISEN:g} times its least.",
    "At the larger D one seed, one preprocessing, two starts and one noise were tried.",
)


def _edges(nets: pd.DataFrame) -> Iterator[str]:
    """Yields where a learning rate beyond those that were tried might be better."""
    for name in ACTIVATIONS:
        best = pair(nets, name).iloc[0]
        tried = nets[(nets["part"] == PAIRS) & (nets["activation"] == name)]["rate"]
        ends = {tried.min(): "least", tried.max(): "largest"}
        if len(ends) > 1 and best["rate"] in ends:
            yield (
                f"Other rates: the best of {best['objective']} with the {name} activation, "
                f"{best['rate']:g}, is the {ends[best['rate']]} that was tried."
            )


def _checks(nets: pd.DataFrame) -> Iterator[Check]:
    """Yields what only a fault could break."""
    first = nets.assign(first=nets["nll"].map(lambda nll: nll[0]))
    alike = first.groupby(["seed", "width", "preprocessing", "activation", *START])["first"]
    spread = float((alike.max() - alike.min()).max())
    yield Check.of(
        "Nets that start alike have one NLL at the start, whatever trains them",
        "largest difference, nats", spread, within(1e-4),
    )  # fmt: skip
    whitened = first[first["preprocessing"] == "whitened"]
    linear = _from(_of(whitened, "learned"), PLAIN)
    gap = float(((linear["first"] - linear["gaussian"]).abs() / linear["width"]).max())
    yield Check.of(
        "A learned activation starts as the identity: whitened, the net is the Gaussian",
        "largest difference an element, nats", gap, within(0.05),
        "Up to the whitening's shrinkage of 0.001.",
    )  # fmt: skip
