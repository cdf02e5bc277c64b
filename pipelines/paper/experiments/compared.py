"""Trainings that are compared: other packages' densities beside flows, what one gains over another
test row by test row, and validation NLL against seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipelines.config import ChainConfig, DensityConfig
from pipelines.paper.config import PaperConfig, PeerConfig
from pipelines.paper.experiments.cell import Cell, Folders, Row, first_seed
from pipelines.paper.experiments.settings import SMOKE_STEPS
from pipelines.reporting.statistics import student
from pipelines.reporting.style import Captioned, panels
from pipelines.tracking import metrics_log

LOG_PROBS, FOLDERS = "log_probs", "folders"
"""Keys of the test rows' log-densities, and of what the cell's stages wrote, which a row has until
it is shown."""

WHITENED = ("kde",)
"""Peers that are fitted behind a whitening; all others behind a standardization."""

SHRINKAGE = 0.01
"""Of what is whitened."""

DASHES = ("-", "--", "-.", ":")


def peer(
    config: PaperConfig, labels: Mapping[str, str], name: str, flow: DensityConfig, seconds: float
) -> Cell:
    """Returns the cell of a peer that is given the data and as many seconds as a flow.

    Its chain dequantizes as the flow's does, so that both are densities of the same rows; it
    standardizes, or whitens, and leaves tails as they are.

    Arguments:
        config: The experiment's configuration.
        labels: Of the cell.
        name: Of the peer.
        flow: The flow's configuration.
        seconds: At scale ``cpu``, if the configuration has none; the most at the others.
    """
    limits = {"seconds": config.seconds or seconds, "threads": config.threads}
    if config.scale == "smoke":
        limits["steps"] = SMOKE_STEPS
    fitted = PeerConfig(name=name, seed=flow.seed, **limits)
    changes = {"normalize": "standardize", "shrinkage": 0.0, "tails": False}
    if name in WHITENED:
        changes |= {"normalize": "whiten", "shrinkage": SHRINKAGE}
    options = flow.preprocess.changed(**changes)
    chain = ChainConfig(seed=flow.seed, chain=options, threads=config.threads)
    return Cell(labels, fitted, flow.seed, flow.data, chain, method=name)


def measured(cells: Sequence[Cell], folders: Sequence[Folders]) -> list[Row]:
    """Returns the rows of the cells that are for such data, each with its curve of validations."""
    pairs = ((cell.row(found), found) for cell, found in zip(cells, folders, strict=True))
    return [
        {
            **row,
            "curve": _curve(found[0]),
            LOG_PROBS: np.load(found[-1] / "log_probs.npz")["test"],
            FOLDERS: found,
        }
        for row, found in pairs
        if "test/nll" in row
    ]


def with_gains(rows: Sequence[Row], reference: Mapping[str, str], *same: str) -> list[Row]:
    """Returns rows as they are shown, with what each gains over a reference.

    Arguments:
        rows: The rows, with log-densities.
        reference: Labels of a reference.
        same: The labels that a row and its reference have in common, besides their seed.
    """

    def key(row: Row) -> tuple[object, ...]:
        return (row["seed"], *(row["labels"][name] for name in same))

    references = {key(row): row for row in rows if reference.items() <= row["labels"].items()}
    return [with_gain(row, references.get(key(row))) for row in rows]


def with_gain(row: Row, reference: Row | None, name: str = "gain") -> Row:
    """Returns a row as it is shown, with its gain over another of the same test rows."""
    shown = {key: value for key, value in row.items() if key not in (LOG_PROBS, FOLDERS)}
    if reference is not None:
        gain = student(row[LOG_PROBS] - reference[LOG_PROBS])
        shown |= {name: gain.value, f"{name}_se": gain.se}
    return shown


def _curve(trained: Path) -> list[list[float]]:
    """Returns training seconds and validation NLL at the validations of a training's folder."""
    found = metrics_log.curve(metrics_log.read(trained / metrics_log.FILE), "validate")
    return [[row["metrics"]["time/train_s"], row["metrics"]["val/nll"]] for row in found]


def drawn(rows: Sequence[Row], place: Callable[..., tuple[str, str]]) -> Captioned:
    """Returns the first seed's best validation NLL so far against training seconds.

    Arguments:
        rows: The rows, with their curves.
        place: From the labels of a row to the title of its panel and the name of its line.
    """
    trainings: dict[str, dict[str, Sequence[Sequence[float]]]] = {}
    for (row,) in first_seed(rows):
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
    """Returns limits that show how trainings end rather than how they begin."""
    low, high = min(ends), float(np.quantile(ends, 0.8))
    spread = max(high - low, 0.02 * abs(low), 1e-3)
    return low - 0.15 * spread, high + 1.5 * spread
