"""What known metrics of attributions say of the models, beside alignment with exact scores.

It is told as a table and not as claims: eighteen more would take their share of Holm's correction
from the questions that the study is for. Rank correlations are over the models of the study, which
were chosen, and say nothing of others.
"""

from collections.abc import Mapping

from ebflow.inference import Confidence
from pipelines.gradient_alignment.comparisons import Lines, less, order
from pipelines.gradient_alignment.models import BASELINE, BLIND
from pipelines.gradient_alignment.table import Column, cells
from pipelines.reporting.claims import Table
from pipelines.reporting.intervals import fields, shown

ALIGNMENTS = ("A1", "A3")

Entries = Mapping[str, Mapping[str, Mapping[str, float | None] | None]]
"""By metric and number its ``value``, ``low`` and ``high``; None where it was not measured."""

JUDGES = (
    (Column("infidelity", "infidelity", 4), -1),
    (Column("infidelity/relative", "infidelity, relative", 4), -1),
    (Column("sensitivity", "sensitivity", 4), -1),
    (Column("ROAD/most", "ROAD, most salient first"), -1),
    (Column("ROAD/least", "ROAD, least salient first"), 1),
    (Column("IROF", "IROF"), 1),
    (Column("randomised/last", "randomised last layer"), -1),
    (Column("randomised/all", "randomised network"), -1),
    (Column("PP/own/raw", "pixel perturbation"), 1),
)
"""Metrics of the true class's logit-gradient, each with 1 if more is better, −1 if less is."""


def _found(metric: str, sign: int, lines: Lines) -> dict[str, Confidence | None]:
    """Returns its rank correlations, the better the larger, and what the gauge alone changes."""
    numbers = {name: order(name, metric, sign) for name in ALIGNMENTS}
    numbers["gaussian"] = less(metric, BLIND["gaussian"], BASELINE)
    return {name: number.found(lines) for name, number in numbers.items()}


def entries(lines: Lines) -> Entries:
    """Returns what ``summary.json`` tells of every metric; nothing of too few trainings."""
    if not order(*ALIGNMENTS).known(lines):
        return {}
    return {
        column.metric: {
            name: found and fields(found.interval())
            for name, found in _found(column.metric, sign, lines).items()
        }
        for column, sign in JUDGES
    }


def tables(lines: Lines, entries: Entries) -> list[Table]:
    """Returns the metrics of every model, and their order beside that of alignment, if told."""
    columns = [column for column, _ in JUDGES[:-1]]
    models = Table(
        "Known metrics of the logit-gradient as an attribution",
        ("model", *(column.heading for column in columns)),
        cells(lines, columns),
        "Means over seeds ± 95 % intervals, of noisy test points. ROAD: mean accuracy while "
        "pixels are imputed from their neighbours; IROF: area over the curve of the probability "
        "while patches of a 4 × 4 grid are filled; randomised: rank correlation of magnitudes "
        "with those after parameters are drawn anew.",
    )
    return [models, _orders(lines, entries)] if entries else [models]


def _orders(lines: Lines, entries: Entries) -> Table:
    headings = (*ALIGNMENTS, "baseline", "a class-blind Gaussian adds")
    rows = []
    for column, sign in JUDGES:
        metric, digits = column.metric, column.digits
        *orders, change = entries[metric].values()
        rows.append((
            f"{column.heading} ({'less' if sign < 0 else 'more'} is better)",
            *(_cell(found, 2) for found in orders),
            shown(lines[BASELINE].interval(metric), digits),
            _cell(change, digits),
        ))  # fmt: skip
    return Table(
        "What known metrics say of the models, beside alignment with exact scores",
        ("metric", *headings),
        rows,
        "Rank correlation of the metric, the better the larger, with A1 and A3 over the sound "
        "trainings of the study, seed by seed, ± 95 % intervals over seeds. Beside it what the "
        "metric is of the baseline, and by how much a class-blind Gaussian on every logit changes "
        "it, which trains nothing.",
    )


def _cell(found: Mapping[str, float | None] | None, digits: int) -> str:
    return shown(tuple(found.values()), digits) if found else ""
