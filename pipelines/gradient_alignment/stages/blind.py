"""From prepared data and a flow of all rows to class-blind densities."""

import json
import shutil
from pathlib import Path

import torch

from ebflow import mixtures
from ebflow.alignment.reference import pooled
from ebflow.alignment.rows import unit_rows
from ebflow.data.loader import Dataset
from pipelines.gradient_alignment import references
from pipelines.gradient_alignment.config import MeasureConfig
from pipelines.tracking import StageRun


def blind(
    config: MeasureConfig, data: Path, trained: Path, *, output: Path, work: Path, run: StageRun
) -> None:
    """Writes the pooled Gaussian, the flow, and their log-densities in ``quality.json``.

    Arguments:
        config: The test points, and the noise that smooths.
        data: The prepared data.
        trained: What the training of the flow of all rows left.
    """
    torch.set_num_threads(config.threads)
    dataset = Dataset(data)
    gaussian = pooled(unit_rows(dataset.split("train")), config.noise)
    mixtures.save(gaussian, output / references.GAUSSIAN)
    shutil.copytree(trained / "checkpoint", output / references.FLOW)
    x = references.points(dataset, "test", config.points, config.noise, config.seed).noisy
    quality = {
        f"blind/{name}": float(density.log_prob(x).mean()) / x.shape[1]
        for name, density in references.open_blind(output).items()
    }
    (output / "quality.json").write_text(json.dumps(quality, indent=1) + "\n")
    run.log_metrics(quality)
