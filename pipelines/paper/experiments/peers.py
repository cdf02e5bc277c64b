"""Cells of other packages' densities, and what rows of them and of flows share."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.config import ChainConfig, DensityConfig
from pipelines.paper.config import PaperConfig, PeerConfig
from pipelines.paper.experiments.cell import Cell, Folders, Row
from pipelines.paper.experiments.settings import SMOKE_STEPS
from pipelines.training import metrics_log as logged

WHITENED = ("kde",)
"""Peers that are fitted behind a whitening; all others behind a standardisation."""

SHRINKAGE = 0.01
"""Of what is whitened."""

LOG_PROBS = "log_probs"
"""Key of the test rows' log-densities, which a row has until it is shown."""


def peer(
    config: PaperConfig, labels: Mapping[str, str], name: str, flow: DensityConfig, seconds: float
) -> Cell:  # fmt: skip
    """Returns the cell of a peer that is given the data and as many seconds as a flow.

    Its chain dequantises as the flow's does, so that both are densities of the same rows; it
    standardises, or whitens, and leaves tails as they are.

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
    changes = {"normalise": "standardise", "shrinkage": 0.0, "tails": False}
    if name in WHITENED:
        changes |= {"normalise": "whiten", "shrinkage": SHRINKAGE}
    options = flow.preprocess.changed(**changes)
    chain = ChainConfig(seed=flow.seed, chain=options, threads=config.threads)
    return Cell(labels, fitted, flow.seed, flow.data, chain, method=name)


def measured(
    cells: Sequence[Cell], folders: Sequence[Folders]
) -> Iterator[tuple[Cell, Folders, Row]]:
    """Yields cells, their folders and rows, of those that are for such data.

    A row has the test rows' log-densities besides.
    """
    for cell, found in zip(cells, folders, strict=True):
        row = cell.row(found)
        if "test/nll" in row:
            with np.load(found[-1] / "log_probs.npz") as file:
                yield cell, found, {**row, LOG_PROBS: file["test"]}


def curve(trained: Any) -> list[list[float]]:  # noqa: ANN401
    """Returns training seconds and validation NLL at the validations of a training's folder."""
    steps = logged.curve(logged.read(trained / logged.FILE)[0], "validate")
    metrics = (step["metrics"] for step in steps)
    return [[found["time/train_s"], found["val/nll"]] for found in metrics]


def with_gain(row: Row, reference: Row | None, name: str = "gain") -> Row:
    """Returns a row as it is shown, with its gain over another of the same test rows."""
    shown = {key: value for key, value in row.items() if key != LOG_PROBS}
    if reference is not None:
        shown[name], shown[f"{name}_se"] = gained(row[LOG_PROBS], reference[LOG_PROBS])
    return shown


def gained(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Returns the mean of what log-densities of the same rows gain, and its standard error."""
    gain = ours - theirs
    return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))
