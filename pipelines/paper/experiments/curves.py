"""NLL against steps and against seconds: the published settings by each objective.

The cells are those of the experiment ``table``, which has their final numbers; what has run there
is not run again. The paper's claim is that score matching is ahead of exact likelihood at equal
time. Seconds are those of this machine: run nothing else on it.
"""

from collections.abc import Iterator, Sequence

from pipelines.paper import cell
from pipelines.paper.cell import Cell, Experiment, Finished, Row
from pipelines.paper.config import PaperConfig
from pipelines.paper.progress import Curve, curve, draw
from pipelines.paper.table import TABLE
from pipelines.reporting.claims import Conclusion, Measured, Question, decide
from pipelines.reporting.statistics import above, student
from pipelines.reporting.style import Captioned

PAPER = "paper"  # The published settings
MATCHING = ("ssm_vr", "dsm", "fd_ssm")


def cells(config: PaperConfig, seed: int) -> list[Cell]:
    """Returns the cells of ``table``; without ``settings`` those with the published ones."""
    return [*TABLE.cells(config.changed(settings=config.settings or (PAPER,)), seed)]


def by_network(finished: Sequence[Finished]) -> dict[str, dict[str, list[Curve]]]:
    """Returns the curves of the seeds by network, and by objective (and other settings)."""
    found: dict[str, dict[str, list[Curve]]] = {}
    for one in finished:
        network, settings, objective = one.cell.labels.values()
        name = objective if settings == PAPER else f"{objective}, {settings}"
        found.setdefault(network, {}).setdefault(name, []).append(curve(one))
    return found


def conclude(finished: Sequence[Finished]) -> Conclusion:
    """Returns a claim for each network and form of score matching."""
    long = cell.decisive(finished)
    claims = decide([*_measured(finished)] if long else [])
    change = "Another machine, on which determinants are cheaper or dearer; other learning rates."
    return Conclusion(claims=tuple(claims), would_change=(change,))


def _measured(finished: Sequence[Finished]) -> Iterator[Measured]:
    for network, curves in by_network(finished).items():
        for objective in (name for name in MATCHING if name in curves and "ml" in curves):
            pairs = list(zip(curves["ml"], curves[objective], strict=False))
            leads = [lead for exact, other in pairs if (lead := _lead(exact, other)) is not None]
            question = Question(
                claim=f"{network}: {objective} is ahead of ml at equal time.",
                quantity="NLL of ml less its own, validation images",
                units="nats",
                expected=above(0.0),
                figure=f"curves-{network}",
                item="E7",
                note="Within the seconds of the shorter training of both. Over seeds; a single "
                "seed has no interval.",
            )
            yield question, student(leads) if leads else None


def _lead(exact: Curve, other: Curve) -> float | None:
    """Returns how much lower the NLL of ``other`` is within the seconds that both trained."""
    seconds = min(exact.seconds[-1], other.seconds[-1])
    found = exact.best_within(seconds), other.best_within(seconds)
    return None if None in found else found[0] - found[1]


def figures(rows: Sequence[Row], finished: Sequence[Finished]) -> dict[str, Captioned]:
    """Returns validation NLL against steps and seconds, a figure for each network."""
    caption = (
        "Validation NLL of the averaged weights against steps and against seconds of training on "
        "this machine; several lines of a colour are seeds."
    )
    return {
        f"curves-{network}": (draw(curves, titles=(network, network)), caption)
        for network, curves in by_network(finished).items()
    }


CURVES = Experiment(
    about="NLL against steps and seconds by objective, published settings",
    legend="the cells of the experiment table; last column: MNIST, at the paper's length of "
    "training, on a GPU",
    source=TABLE.source,
    data=TABLE.data,
    uses=TABLE.uses,
    cells=cells,
    columns=TABLE.columns,
    figures=figures,
    conclude=conclude,
)
