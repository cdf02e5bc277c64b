"""A trial of a search over regularisers: from a configuration to accuracy and alignment.

Both are of validation rows: the test split stays unseen.
"""

__all__ = ["trial"]

from collections.abc import Callable
from pathlib import Path

from ebflow.alignment.training import Training
from ebflow.data.loader import Dataset
from pipelines.gradient_alignment.config import ClassifierConfig
from pipelines.gradient_alignment.fitting import Fitted, fit
from pipelines.gradient_alignment.holdout import Held


def trial(
    config: ClassifierConfig,
    data: Path,
    reference: Path,
    *,
    resume: Callable[[Training, Fitted], None] = lambda training, fitted: None,
    tell: Callable[[Training, Fitted], None] = lambda training, fitted: None,
) -> dict[str, float]:
    """Returns ``val/accuracy``, ``val/A1`` (``val/A2`` of a marginal), and the DSM residual.

    A training that diverged has no number; one that collapsed has ``val/collapsed`` 1.

    Arguments:
        config: What is tried.
        data: Prepared data with classes.
        reference: What the reference stage wrote for them.
        resume: Called once before the first epoch: gives a new training what an old one left.
        tell: Called after every epoch with the training and what it told; it may raise to prune.
    """
    dataset, device = Dataset(data), "cuda" if config.gpu else "cpu"
    fitted = fit(config, dataset, device=device, resume=resume, tell=tell)
    if fitted.diagnosis.startswith("diverged"):
        return {}
    found = Held(config, dataset, reference, "validation", device).measure(fitted.network)
    return {
        **{f"val/{name}": value for name, value in found.items()},
        "val/collapsed": float(fitted.diagnosis != ""),
    }
