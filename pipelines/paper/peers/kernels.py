r"""A kernel density estimate: a Gaussian of width h at every training row.

.. math:: p(x) = \frac{1}{N} \sum_i N(x; x_i, h^2 I),

behind a whitening, as the covariance of the data would shape it; h is chosen by validation.
"""

import math
import time

import torch
from torch import Tensor

from pipelines.paper.config import PeerConfig
from pipelines.paper.peers.behind import Behind, Fitted, Point, Values

MOST = 20_000
"""The most training rows, and 100 elements of one: it is for small tables."""

WIDEST = 100
WIDTHS = torch.logspace(-1.5, 0.25, 15, dtype=torch.float64).tolist()
AT_A_TIME = 1 << 22


def fit(config: PeerConfig, data: Behind) -> Fitted | None:
    """Returns the estimate of the best width; None of a table that is not small."""
    if len(data.dataset.split("train")) > MOST or data.width > WIDEST:
        return None
    began, rows = time.perf_counter(), data.rows("train", config.seed)
    nlls = {h: data.nll(kernels(rows, h)) for h in WIDTHS}
    best = min(nlls, key=nlls.__getitem__)
    point = Point(1, time.perf_counter() - began, nlls[best])
    method = f"Gaussian kernels of width {best:.3g} in whitened units, of {len(WIDTHS)} widths"
    return Fitted(kernels(rows, best), method, [point])


def kernels(rows: Tensor, width: float) -> Values:
    """Returns the log-density of Gaussians of a width at rows with shape (N, D)."""
    count, size = rows.shape
    constant = math.log(count) + size * (math.log(width) + 0.5 * math.log(2 * math.pi))

    def values(x: Tensor) -> Tensor:
        parts = x.split(max(1, AT_A_TIME // count))
        squares = (torch.cdist(part, rows).square() for part in parts)
        return torch.cat([(-0.5 / width**2 * s).logsumexp(1) for s in squares]) - constant

    return values
