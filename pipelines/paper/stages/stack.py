"""From prepared data to many small nets that were trained at once, measured on the way."""

import json
from pathlib import Path

import numpy as np
import torch

from ebflow.data.loader import Dataset
from pipelines.paper.config import StackConfig
from pipelines.paper.stacked import train
from pipelines.tracking import StageRun

TRAININGS, LOG_PROBS = "trainings.json", "log_probs.npz"


def stack(config: StackConfig, data: Path, *, output: Path, work: Path, run: StageRun) -> None:
    """Writes ``trainings.json``, and ``log_probs.npz`` of the test rows, as ``train`` tells."""
    torch.set_num_threads(config.threads)
    run.log_params(config.model_dump())
    dataset = Dataset(data)
    run.log_input(dataset.manifest, "training")
    measured, rows = train(config, dataset)
    (output / TRAININGS).write_text(json.dumps(measured) + "\n")
    np.savez(output / LOG_PROBS, **{name: values.numpy() for name, values in rows.items()})
    run.log_metrics({"study/trainings": len(measured["trainings"])})
