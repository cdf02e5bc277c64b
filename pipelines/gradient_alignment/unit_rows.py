"""Prepared data as rows in [0, 1], and as a data set of one class smoothed by noise.

Levels are divided by the largest one; real features are mapped from their range over the training
split, of which test rows may leave some.
"""

__all__ = ["smoothed", "unit_rows"]

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ebflow.errors import BadInput
from ebflow.randomness import generator as derive
from ebflow.randomness import normal
from pipelines.data.dataset import Dataset, StoredSplit
from pipelines.data.manifest import Manifest, Statistics
from pipelines.data.shards import Shard, ShardWriter, shard_schema
from pipelines.data.splits import SPLITS
from pipelines.moments import Moments

SHARD_ROWS = 65536


def unit_rows(split: StoredSplit) -> Tensor:
    """Returns the rows in [0, 1] with shape (N, D), in float32."""
    x, statistics = split.tensor().float(), split.manifest.statistics
    if split.levels is not None:
        return x / (split.levels - 1)
    least, most = (torch.tensor(s, dtype=x.dtype) for s in (statistics.min, statistics.max))
    spread = most - least
    return (x - least) / torch.where(spread > 0, spread, 1.0)


def smoothed(
    dataset: Dataset,
    folder: Path,
    *,
    noise: float,
    draws: int,
    seed: int = 0,
    label: int | None = None,
) -> Manifest:
    """Writes rows of the density smoothed by noise, as a prepared data set of real numbers.

    Every row of a split is there ``draws`` times, each with noise of its own; images stay
    images. A flow that is fitted to them, and its likelihoods, are those of the smoothed density.

    Arguments:
        dataset: The prepared data, with classes if ``label`` is given.
        folder: An empty folder to fill.
        noise: s, in the units of rows in [0, 1].
        draws: The draws of noise a row.
        seed: Where the noise comes from.
        label: The class whose rows are taken; None: all rows.

    Raises:
        BadInput: If a split has no row of the class.
    """
    width, moments = dataset.manifest.width, Moments(dataset.manifest.width)
    shards: list[Shard] = []
    counts = {}
    for split in SPLITS:
        x, rows = _rows(dataset.split(split), label)
        writer = ShardWriter(folder, split, shard_schema(width, "float32"), SHARD_ROWS)
        draw = derive(seed, "smooth", split, -1 if label is None else label)
        for _ in range(draws):
            noisy = torch.add(x, normal(x.shape, x, draw), alpha=noise).numpy()
            writer.append((noisy, rows))
            if split == "train":
                moments.update(noisy)
        shards += writer.close()
        counts[split] = draws * len(x)
    manifest = _manifest(dataset.manifest, shards, counts, moments, seed)
    manifest.save(folder)
    return manifest


def _rows(split: StoredSplit, label: int | None) -> tuple[Tensor, np.ndarray]:
    """Returns the rows of a class in [0, 1], and their places in the split."""
    x, rows = unit_rows(split), torch.arange(len(split))
    if label is not None:
        rows = (split.labels() == label).nonzero().squeeze(1)
    if not len(rows):
        raise BadInput(
            f"{split.where}: found no row of class {label}, expected at least one: raise "
            "validation and test"
        )
    return x[rows], rows.numpy()


def _manifest(
    source: Manifest, shards: list[Shard], counts: dict[str, int], moments: Moments, seed: int
) -> Manifest:
    return Manifest(
        name=source.name,
        source=source.source,
        shape=source.shape,
        dtype="float32",
        levels=None,
        columns=None,
        counts=counts,
        shards=tuple(shards),
        statistics=Statistics(**moments.summary()),
        seed=seed,
        assignment=f"{source.assignment}; smoothed",
    )
