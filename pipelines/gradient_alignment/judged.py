"""What known metrics of attributions say of the models, beside alignment with exact scores.

It is told as a table and not as claims. Every metric has two rank correlations, and at some
fifteen trainings the interval of one is half a unit wide or more to either side: eighteen more
claims, hardly any of which could be decided, would take their share of Holm's correction from the
questions that the study is for. Two intervals are told: over trainings, which are drawn from all
that one might train, and over seeds, of the very models that were.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ebflow.inference import Confidence
from pipelines.gradient_alignment.comparisons import Lines, Order, less
from pipelines.gradient_alignment.models import BASELINE, BLIND
from pipelines.gradient_alignment.table import Column
from pipelines.reporting.claims import Table
from pipelines.reporting.intervals import fields, shown

ALIGNMENTS = ("A1", "A3")

Entries = Mapping[str, Mapping[str, Mapping[str, float | None] | None]]
"""By metric and number its ``value``, ``low`` and ``high``; None where it was not measured."""


@dataclass(frozen=True)
class Judge:
    """A metric of attributions.

    Attributes:
        column: The metric.
        sign: 1 if more is better, −1 if less is.
    """

    column: Column
    sign: int


JUDGES = (
    Judge(Column("infidelity", "infidelity", 4), -1),
    Judge(Column("infidelity/relative", "infidelity, relative", 4), -1),
    Judge(Column("sensitivity", "sensitivity", 4), -1),
    Judge(Column("ROAD/most", "ROAD, most salient first"), -1),
    Judge(Column("ROAD/least", "ROAD, least salient first"), 1),
    Judge(Column("IROF", "IROF"), 1),
    Judge(Column("randomised/last", "randomised last layer"), -1),
    Judge(Column("randomised/all", "randomised network"), -1),
    Judge(Column("PP/own/raw", "pixel perturbation"), 1),
)
"""All of the true class's logit-gradient."""


def _found(judge: Judge, lines: Lines) -> dict[str, Confidence | None]:
    """Returns its rank correlations, the better the larger, and what the gauge alone changes."""
    metric = judge.column.metric
    orders = {name: Order(name, metric) for name in ALIGNMENTS}
    correlations = {name: order.found(lines) for name, order in orders.items()}
    correlations |= {f"{name}/seeds": order.over_seeds(lines) for name, order in orders.items()}
    signed = {
        name: found and replace(found, value=judge.sign * found.value)
        for name, found in correlations.items()
    }
    return signed | {"gaussian": less(metric, BLIND["gaussian"], BASELINE).found(lines)}


def entries(lines: Lines) -> Entries:
    """Returns what ``summary.json`` tells of every metric; nothing of too few trainings."""
    if not Order(*ALIGNMENTS).known(lines):
        return {}
    return {
        judge.column.metric: {
            name: found and fields(found.interval())
            for name, found in _found(judge, lines).items()
        }
        for judge in JUDGES
    }


def tables(lines: Lines, entries: Entries) -> list[Table]:
    """Returns the metrics of every model, and their order beside that of alignment, if told."""
    columns = [judge.column for judge in JUDGES[:-1]]
    models = Table(
        "Known metrics of the logit-gradient as an attribution",
        ("model", *(column.heading for column in columns)),
        [
            (name, *(shown(line.interval(c.metric), c.digits) for c in columns))
            for name, line in lines.items()
        ],
        "Means over seeds ± 95 % intervals, of noisy test points. ROAD: mean accuracy while "
        "pixels are imputed from their neighbours; IROF: area over the curve of the probability "
        "while patches of a 4 × 4 grid are filled; randomised: rank correlation of magnitudes "
        "with those after parameters are drawn anew.",
    )
    return [models, _orders(lines, entries)] if entries else [models]


def _orders(lines: Lines, entries: Entries) -> Table:
    headings = (*(f"{name}, {unit}" for unit in ("over trainings", "over seeds")
                  for name in ALIGNMENTS), "baseline", "a class-blind Gaussian adds")  # fmt: skip
    rows = []
    for judge in JUDGES:
        metric, digits = judge.column.metric, judge.column.digits
        *orders, change = entries[metric].values()
        rows.append((
            f"{judge.column.heading} ({'less' if judge.sign < 0 else 'more'} is better)",
            *(_cell(found, 2) for found in orders),
            shown(lines[BASELINE].interval(metric), digits),
            _cell(change, digits),
        ))  # fmt: skip
    return Table(
        "What known metrics say of the models, beside alignment with exact scores",
        ("metric", *headings),
        rows,
        "Rank correlation of the metric, the better the larger, with A1 and A3 over sound "
        "trainings ± 95 % intervals: of means over seeds, by a bootstrap over trainings; and of "
        "every seed, by Student's over seeds. Beside it what the metric is of the baseline, and "
        "by how much a class-blind Gaussian on every logit changes it, which trains nothing.",
    )


def _cell(found: Mapping[str, float | None] | None, digits: int) -> str:
    return shown(tuple(found.values()), digits) if found else ""
