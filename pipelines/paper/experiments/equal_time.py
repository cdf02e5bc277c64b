"""Trainings compared at equal seconds: peers, gains over a reference, and curves."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipelines.config import ChainConfig, DensityConfig
from pipelines.paper.config import PaperConfig, PeerConfig
from pipelines.paper.experiments.cell import SMOKE_STEPS, Cell, Finished, Row
from pipelines.reporting.statistics import student
from pipelines.reporting.style import Captioned, panels

WHITENED = ("kde",)
"""Peers that are fitted to whitened data; the others are fitted to standardized data."""

SHRINKAGE = 0.01
"""Shrinkage of the whitening."""

DASHES = ("-", "--", "-.", ":")


def peer(
    config: PaperConfig, labels: Mapping[str, str], name: str, flow: DensityConfig, seconds: float
) -> Cell:
    """Returns the cell of a peer that has the data and seconds of a flow.

    Its preprocessing dequantizes as the flow's does, so that both are densities of the same rows.

    Arguments:
        config: The experiment's configuration, whose ``seconds`` replace ``seconds``.
        labels: The cell's labels.
        name: The peer.
        flow: The flow's configuration.
        seconds: The time limit.
    """
    options = {"seconds": config.seconds or seconds, "threads": config.threads}
    if config.scale == "smoke":
        options["steps"] = SMOKE_STEPS
    changes = {"normalize": "standardize", "shrinkage": 0.0, "tails": False}
    if name in WHITENED:
        changes |= {"normalize": "whiten", "shrinkage": SHRINKAGE}
    chain = ChainConfig(
        seed=flow.seed, chain=flow.preprocess.changed(**changes), threads=config.threads
    )
    fitted = PeerConfig(name=name, seed=flow.seed, **options)
    return Cell(labels, fitted, flow.seed, flow.data, chain, method=name)


def with_curve(one: Finished) -> Row:
    """Returns a cell's row with its validations."""
    return {**one.row, "curve": one.curve}


def suitable(finished: Sequence[Finished]) -> list[Finished]:
    """Returns the cells without the peers that do not suit the data."""
    return [one for one in finished if "test/nll" in one.row]


def with_gains(
    finished: Sequence[Finished], reference: Mapping[str, str], *shared: str
) -> list[Row]:
    """Returns the cells' rows, each with its gain over a reference.

    Arguments:
        finished: The cells.
        reference: Labels of the reference.
        shared: The labels that a cell shares with its reference, besides the seed.
    """

    def key(one: Finished) -> tuple[object, ...]:
        return (one.cell.seed, *(one.cell.labels[name] for name in shared))

    references = {
        key(one): one for one in finished if reference.items() <= one.cell.labels.items()
    }
    return [{**with_curve(one), **gain(one, references.get(key(one)))} for one in finished]


def gain(one: Finished, reference: Finished | None, name: str = "gain") -> dict[str, float]:
    """Returns the mean gain in log-density over a reference on the same test rows."""
    if reference is None:
        return {}
    mean = student(one.log_probs - reference.log_probs)
    return {name: mean.value, f"{name}_se": mean.se}


def curves(rows: Sequence[Row], place: Callable[..., tuple[str, str]]) -> Captioned:
    """Returns a figure of the first seed's best validation NLL so far against training seconds.

    Arguments:
        rows: The rows, with their curves.
        place: From the labels of a row to the title of its panel and the name of its line.
    """
    trainings: dict[str, dict[str, Sequence[Sequence[float]]]] = {}
    for row in (row for row in rows if row["seed"] == rows[0]["seed"]):
        title, name = place(*row["labels"].values())
        trainings.setdefault(title, {})[name] = row["curve"]
    count = len(trainings)
    figure, axes = panels(count, 5 * count, 4.6, sharex=True, sharey=True, squeeze=False)
    ends = []
    for axis, (title, lines) in zip(axes[0], trainings.items(), strict=True):
        for index, (name, points) in enumerate(lines.items()):
            seconds, nll = np.array(points).T
            best = np.minimum.accumulate(nll)
            style = {"color": f"C{index % 10}", "ls": DASHES[index % len(DASHES)], "lw": 1.3}
            axis.plot(seconds, best, marker="." if len(best) < 12 else None, label=name, **style)
            ends.append(best[-1])
        axis.set(title=title, xlabel="training (s)")
        axis.legend(fontsize=7)
    axes[0, 0].set(ylabel="validation NLL, best so far (nats)", ylim=_limits(ends))
    return figure, "Of the first seed: the best validation NLL so far."


def _limits(ends: Sequence[float]) -> tuple[float, float]:
    """Returns limits that show the ends of trainings rather than their starts."""
    low, high = min(ends), float(np.quantile(ends, 0.8))
    spread = max(high - low, 0.02 * abs(low), 1e-3)
    return low - 0.15 * spread, high + 1.5 * spread
