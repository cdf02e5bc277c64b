"""A trial of a search over regularisers: from a configuration to accuracy and alignment.

Both are of validation rows: the test split stays unseen.
"""

__all__ = ["trial"]

from collections.abc import Callable
from pathlib import Path

from ebflow.alignment import metrics
from ebflow.alignment.logit import accuracy
from ebflow.alignment.training import Training
from ebflow.data.loader import Dataset
from pipelines.alignment.config import ClassifierConfig
from pipelines.alignment.fitting import Fitted, fit
from pipelines.alignment.references import open_reference, points

MOST = 1000
"""Validation points at most."""


def trial(
    config: ClassifierConfig,
    data: Path,
    reference: Path,
    *,
    tell: Callable[[Training, Fitted], None] = lambda training, fitted: None,
) -> dict[str, float]:
    """Returns ``val/accuracy``, ``val/A1`` (``val/A2`` of a marginal), and the DSM residual.

    A training that diverged has no number; one that collapsed has ``val/collapsed`` 1.

    Arguments:
        config: What is tried.
        data: Prepared data with classes.
        reference: What the reference stage wrote for them.
        tell: Called after every epoch with the training and what it told; it may raise to prune.
    """
    dataset = Dataset(data)
    fitted = fit(config, dataset, tell=tell)
    if fitted.diagnosis.startswith("diverged"):
        return {}
    held = points(dataset, "validation", MOST, config.smoothing, config.seed)
    found = metrics.gradients(fitted.network.eval(), held.noisy, held.labels)
    cosines = metrics.alignments(found, open_reference(reference).at(held.noisy))
    residual = metrics.dsm(found.own, held.noise, held.sigma)[1]
    return {
        "val/accuracy": accuracy(fitted.network, held.clean, held.labels),
        **{f"val/{name}": float(values.mean()) for name, values in cosines.items()},
        "val/dsm_residual": residual.value,
        "val/collapsed": float(fitted.diagnosis != ""),
    }
