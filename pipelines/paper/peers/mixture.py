"""scikit-learn's mixture of Gaussians with full covariances, its number by validation."""

import time
import warnings
from collections.abc import Iterator

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from pipelines.paper.config import PeerConfig
from pipelines.paper.peers.behind import Behind, Fitted, Point, Values

NUMBERS = (1, 2, 3, 5, 8, 12, 20, 30, 50)
PATIENCE = 2
"""Numbers without a better one before no larger is tried."""


def fit(config: PeerConfig, data: Behind) -> Fitted:
    """Returns the best of the mixtures that the seconds allow, the first in any case."""
    found = list(_tried(config, data))
    point, values = min(found, key=lambda one: one[0].nll)
    method = (
        f"scikit-learn GaussianMixture, full covariances, {point.step} of {NUMBERS} components"
    )
    return Fitted(values, method, [point for point, _ in found])


def _tried(config: PeerConfig, data: Behind) -> Iterator[tuple[Point, Values]]:
    """Yields mixtures of more and more components; ``step`` is their number."""
    rows, spent, best, stale = data.rows("train", config.seed).numpy(), 0.0, float("inf"), 0
    for number in [k for k in NUMBERS if k <= len(rows)]:
        began = time.perf_counter()
        mixture = GaussianMixture(number, reg_covar=1e-6, random_state=config.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(rows)
        spent += time.perf_counter() - began
        values = _values(mixture)
        nll = data.nll(values)
        yield Point(number, spent, nll), values
        best, stale = min(best, nll), 0 if nll < best else stale + 1
        if stale == PATIENCE or spent >= (config.seconds or float("inf")):
            return


def _values(mixture: GaussianMixture) -> Values:
    def values(x: Tensor) -> Tensor:
        return torch.from_numpy(mixture.score_samples(x.numpy()))

    return values
