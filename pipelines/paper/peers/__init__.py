"""Densities of other packages, each fitted as its users do, behind the chain of a flow.

Each ``fit(config, data)`` returns a :class:`Fitted`, or None where the data are too many or too
wide for it.
"""

__all__ = ["FITS", "Fit"]

from collections.abc import Callable

from pipelines.paper.config import PeerConfig
from pipelines.paper.peers import flows, kernels, mixture
from pipelines.paper.peers.behind import Behind, Fitted

Fit = Callable[[PeerConfig, Behind], Fitted | None]

FITS: dict[str, Fit] = {"maf": flows.fit, "nsf": flows.fit, "gmm": mixture.fit, "kde": kernels.fit}
