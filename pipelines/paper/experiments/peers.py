"""Cells of other packages' densities."""

from collections.abc import Mapping

from pipelines.config import ChainConfig, DensityConfig
from pipelines.paper.config import PaperConfig, PeerConfig
from pipelines.paper.experiments.cell import Cell
from pipelines.paper.experiments.settings import SMOKE_STEPS

WHITENED = ("kde",)
"""Peers that are fitted behind a whitening; all others behind a standardisation."""

SHRINKAGE = 0.01
"""Of what is whitened."""


def peer(
    config: PaperConfig, labels: Mapping[str, str], name: str, flow: DensityConfig, seconds: float
) -> Cell:
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
