"""From prepared data with classes to a trained classifier."""

from pathlib import Path

from pipelines.gradient_alignment import fitting
from pipelines.gradient_alignment.config import ClassifierConfig
from pipelines.tracking.run import StageRun
from pipelines.training.stage_reports import begin


def classify(config: ClassifierConfig, data: Path, *, run: StageRun) -> None:
    """Writes the weights and what the training told; goes on from the last checkpoint."""
    dataset = begin(config, config.threads, data, run, "training")
    fitted = fitting.fit(config, dataset, run.work, run.reporter)
    fitting.save(run.output, fitted)
    run.set_tags({"ebflow.verdict": fitted.diagnosis or "ended"})
