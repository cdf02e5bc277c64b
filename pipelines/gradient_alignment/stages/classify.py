"""From prepared data with classes to a trained classifier."""

from pathlib import Path

import torch

from ebflow.data.loader import Dataset
from pipelines import store
from pipelines.gradient_alignment import fitting
from pipelines.gradient_alignment.config import ClassifierConfig
from pipelines.tracking import Follower, StageRun
from pipelines.training import metrics_log


def classify(
    config: ClassifierConfig, data: Path, *, output: Path, work: Path, run: StageRun
) -> None:
    """Writes the weights and what the training told; goes on from the last checkpoint."""
    torch.set_num_threads(config.threads)
    run.log_params(config.model_dump())
    dataset = Dataset(data)
    run.log_input(dataset.manifest, "training")
    store.download(work / metrics_log.FILE)
    with Follower(work / metrics_log.FILE, run):
        fitted = fitting.fit(config, dataset, work)
    fitting.save(output, fitted)
    run.set_tags({"ebflow.verdict": fitted.diagnosis or "ended"})
