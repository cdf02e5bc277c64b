"""Trains a flow of the rows of a class, smoothed by noise."""

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ebflow.errors import BadInput
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.data.dataset import Dataset, StoredSplit
from pipelines.data.manifest import Manifest, Statistics
from pipelines.data.moments import Moments
from pipelines.data.shards import Shard, ShardWriter, shard_schema
from pipelines.data.splits import SPLITS
from pipelines.gradient_alignment.config import FlowConfig
from pipelines.gradient_alignment.reference import unit_rows
from pipelines.tracking.run import StageRun
from pipelines.training.loop import export_checkpoints, fit
from pipelines.training.preprocessing import CHAIN, fitted

SHARD_ROWS = 65536


def flow(config: FlowConfig, data: Path, *, run: StageRun) -> None:
    """Writes ``checkpoint/``, the best by validation; resumes from the last checkpoint."""
    training, folder = config.training, run.work / "data"
    run.log_params(config.model_dump())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    manifest = smoothed(config, Dataset(data), folder)
    run.log_input(manifest, "training")
    chain = run.work / CHAIN
    fitted(training.chain, Dataset(folder)).save(chain)
    summary = fit(training, folder, chain, run.work, run.reporter, here=True)
    run.reporter.finish()
    export_checkpoints(run.work, {"checkpoint": summary["best_step"]}, run.output)
    run.set_tags({"ebflow.verdict": summary["verdict"]})


def smoothed(config: FlowConfig, dataset: Dataset, folder: Path) -> Manifest:
    """Writes rows with noise as prepared data of real numbers, into an empty folder.

    Every row of each split is there ``config.copies`` times with different noise. A flow that is
    fitted to them, and its likelihoods, are those of the smoothed density.

    Raises:
        BadInput: If a split has no row of the class.
    """
    source, label = dataset.manifest, config.label
    moments = Moments(source.width)
    shards: list[Shard] = []
    counts = {}
    for split in SPLITS:
        x, rows = _rows(dataset.split(split), label)
        writer = ShardWriter(folder, split, shard_schema(source.width, "float32"), SHARD_ROWS)
        purpose = ("smooth", split, -1 if label is None else label)
        generator = derive(config.training.seed, *purpose)
        for _ in range(config.copies):
            noisy = torch.add(x, normal(x.shape, x, generator), alpha=config.noise).numpy()
            writer.append((noisy, rows))
            if split == "train":
                moments.update(noisy)
        shards += writer.close()
        counts[split] = config.copies * len(x)
    manifest = Manifest(
        name=source.name, source=source.source, shape=source.shape, dtype="float32", levels=None,
        columns=None, counts=counts, shards=tuple(shards),
        statistics=Statistics(**moments.summary()), seed=config.training.seed,
        assignment=f"{source.assignment}; smoothed",
    )  # fmt: skip
    manifest.save(folder)
    return manifest


def _rows(split: StoredSplit, label: int | None) -> tuple[Tensor, np.ndarray]:
    """Returns the rows of a class in [0, 1], and their places in the split."""
    x, rows = unit_rows(split), torch.arange(len(split))
    if label is not None:
        rows = (split.labels() == label).nonzero().squeeze(1)
    if not len(rows):
        raise BadInput(
            file=split.where, found=f"no row of class {label}", expected="at least one",
            hint="Raise --data.validation and --data.test.",
        )  # fmt: skip
    return x[rows], rows.numpy()
