"""From prepared data with classes to a trained classifier."""

from pathlib import Path

from pipelines.gradient_alignment import fitting
from pipelines.gradient_alignment.config import ClassifierConfig
from pipelines.tracking import Follower, StageRun
from pipelines.training import metrics_log
from pipelines.training.measuring import begun


def classify(
    config: ClassifierConfig, data: Path, *, output: Path, work: Path, run: StageRun
) -> None:
    """Writes the weights and what the training told; goes on from the last checkpoint."""
    dataset = begun(config, config.threads, data, run, "training")
    with Follower(work / metrics_log.FILE, run):
        fitted = fitting.fit(config, dataset, work)
    fitting.save(output, fitted)
    run.set_tags({"ebflow.verdict": fitted.diagnosis or "ended"})
