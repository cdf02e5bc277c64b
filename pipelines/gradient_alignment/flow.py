"""Trains a flow of the rows of a class, smoothed by noise."""

from pathlib import Path

import torch
from torch import Tensor

from ebflow.errors import BadInput
from ebflow.randomness import generator as derive
from ebflow.tables.rows import Arrays, Rows
from pipelines.data.dataset import Dataset, StoredSplit
from pipelines.data.splits import SPLITS
from pipelines.gradient_alignment.config import FlowConfig
from pipelines.gradient_alignment.reference import smoothed, unit_rows
from pipelines.tracking.run import StageRun
from pipelines.training.flow_training import build_training
from pipelines.training.loop import TrainingLoop, WorkerContext, export_checkpoints
from pipelines.training.preprocessing import fit_preprocessing


def flow(config: FlowConfig, data: Path, *, run: StageRun) -> None:
    """Writes ``checkpoint/``, the best by validation; resumes from the last checkpoint."""
    training, rows = config.training, Smoothed(config, run.open(config, Dataset(data)))
    preprocessing = fit_preprocessing(training.preprocess_fit, rows)
    torch.set_num_threads(training.train.threads)
    flow_training = build_training(training, rows, preprocessing)
    loop = TrainingLoop(flow_training, run.work, WorkerContext(run.reporter.log))
    summary = loop.run()
    run.reporter.finish()
    export_checkpoints(run.work, {"checkpoint": summary["best_step"]}, run.output)
    run.set_tags({"ebflow.verdict": summary["verdict"]})


class Smoothed(Arrays):
    """The rows of a class with noise, as a data set of real numbers in memory.

    Every row of each split is there ``config.copies`` times with different noise. A flow that is
    fitted to them, and its likelihoods, are those of the smoothed density.

    Raises:
        BadInput: If a split has no row of the class.
    """

    def __init__(self, config: FlowConfig, dataset: Dataset) -> None:
        self.digest = dataset.digest
        changes = {"dtype": "float32", "levels": None, "columns": None, "context": None}
        self.manifest = dataset.manifest.model_copy(update=changes)
        super().__init__(*(_smoothed(config, dataset.split(name)) for name in SPLITS))


def _smoothed(config: FlowConfig, split: StoredSplit) -> Rows:
    x, label = _rows(split, config.label), -1 if config.label is None else config.label
    generator = derive(config.training.seed, "smooth", split.name, label)
    copies = [smoothed(x, config.noise, generator) for _ in range(config.copies)]
    return Rows(torch.cat(copies).unflatten(1, split.shape), name=split.name)


def _rows(split: StoredSplit, label: int | None) -> Tensor:
    """Returns the rows of a class in [0, 1]."""
    x = unit_rows(split)
    if label is not None:
        x = x[split.labels() == label]
    if not len(x):
        raise BadInput(
            option=f"split {split.name}",
            found=f"no row of class {label}", expected="at least one",
            hint="Raise --data.validation and --data.test.",
        )  # fmt: skip
    return x
