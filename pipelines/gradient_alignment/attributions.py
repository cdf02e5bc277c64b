"""What known metrics of attributions say of the models, beside alignment with exact scores.

They form a table and not claims: twelve more would take their share of Holm's correction
from the questions that the study is for. Rank correlations are over the models of the study, which
were chosen, and say nothing of others.
"""

from collections.abc import Mapping

from pipelines.gradient_alignment.comparisons import less, order
from pipelines.gradient_alignment.models import BASELINE, BLIND
from pipelines.gradient_alignment.over_seeds import Column, Lines, by_model
from pipelines.reporting.result import Table, plus_minus
from pipelines.reporting.statistics import Interval

ALIGNMENTS = ("A1", "A3")

Orders = Mapping[str, Mapping[str, Interval | None]]
"""By metric its numbers; None where one was not measured."""

METRICS = (
    (Column("infidelity", "infidelity", 4), -1),
    (Column("infidelity/relative", "infidelity, relative", 4), -1),
    (Column("sensitivity", "sensitivity", 4), -1),
    (Column("randomized/last", "randomized last layer"), -1),
    (Column("randomized/all", "randomized network"), -1),
    (Column("PP/own/raw", "pixel perturbation"), 1),
)
"""Metrics of the true class's logit-gradient, each with 1 if more is better, −1 if less is."""


def orders(lines: Lines) -> Orders:
    """Returns rank correlations, the better the larger, and what the gauge alone changes.

    Nothing of too few trainings.
    """
    found: dict[str, dict[str, Interval | None]] = {}
    for column, sign in METRICS if order(*ALIGNMENTS).known(lines) else ():
        numbers = {name: order(name, column.metric, sign) for name in ALIGNMENTS}
        numbers["gaussian"] = less(column.metric, BLIND["gaussian"], BASELINE)
        means = {name: number.found(lines) for name, number in numbers.items()}
        found[column.metric] = {name: one and one.interval() for name, one in means.items()}
    return found


def entries(orders: Orders) -> dict[str, dict[str, dict[str, float | None] | None]]:
    """Returns what ``summary.json`` tells of every metric."""
    return {
        metric: {name: found and found._asdict() for name, found in numbers.items()}
        for metric, numbers in orders.items()
    }


def tables(lines: Lines, orders: Orders) -> list[Table]:
    """Returns the metrics of every model, and their order beside that of alignment, if told."""
    models = by_model(
        "Known metrics of the logit-gradient as an attribution",
        lines,
        [column for column, _ in METRICS[:-1]],
        "Means over seeds ± 95 % intervals, of noisy test points. Randomized: rank correlation "
        "of magnitudes with those of a network with new random parameters.",
    )
    return [models, _beside_alignment(lines, orders)] if orders else [models]


def _beside_alignment(lines: Lines, orders: Orders) -> Table:
    rows = []
    for column, sign in METRICS:
        a1, a3, added = orders[column.metric].values()
        baseline = lines[BASELINE].interval(column.metric)
        numbers = ((a1, 2), (a3, 2), (baseline, column.digits), (added, column.digits))
        texts = (plus_minus(one, digits) if one else "" for one, digits in numbers)
        better = "less" if sign < 0 else "more"
        rows.append((f"{column.heading} ({better} is better)", *texts))
    return Table(
        "What known metrics say of the models, beside alignment with exact scores",
        ("metric", *ALIGNMENTS, "baseline", "a class-blind Gaussian adds"),
        rows,
        "Rank correlation of the metric, the better the larger, with A1 and A3 over the sound "
        "trainings of the study, seed by seed, ± 95 % intervals over seeds. Beside it what the "
        "metric is of the baseline, and by how much a class-blind Gaussian on every logit changes "
        "it, which trains nothing.",
    )
