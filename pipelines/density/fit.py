"""The fit of a trained flow to the test rows: samples, and the least likely rows.

Samples of tables are compared with test rows by ``ebflow.checks``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import torch
from torch import Tensor

from ebflow.checks import LEAST, Check, check
from ebflow.flow import Flow
from ebflow.randomness import generator
from ebflow.tables import Column, Columns
from ebflow.tables.batches import Batch
from ebflow.tables.rows import subset
from pipelines.data.dataset import Dataset
from pipelines.data.manifest import Manifest
from pipelines.reporting.style import is_picture

ROWS = 2000  # Most test rows that are compared with as many samples
TILES = 64  # Samples of images, which are only shown
UNLIKELY = 10  # Least likely test rows that are shown
EXPLAINED = 64  # Most columns of a table whose least likely rows have reasons


@dataclass(frozen=True)
class Fit:
    """Test rows beside samples, and the least likely test rows."""

    names: list[str]  # of the columns with their units; x[0], x[1], … of rows without names
    is_image: bool  # True if rows are shown as images
    x: Tensor  # random test rows with shape (n, D), in raw units
    y: Tensor  # samples with shape (m, D)
    lost: int  # samples that are not finite, and dropped
    check: Check | None  # of tables with enough rows
    shapes: np.ndarray  # of the columns by the check, NaN without one, with shape (D,)
    least: list[tuple[str, str, str]]  # rows by number, with log-densities and reasons

    @property
    def warnings(self) -> list[str]:
        """A sentence if samples were dropped."""
        if not self.lost:
            return []
        return [
            f"{self.lost} of {self.lost + len(self.y)} samples are not finite: the flow's inverse "
            "overflows. Train for longer, or lower --train.lr"
        ]

    @property
    def values(self) -> dict[str, Any]:
        """The figures for ``summary.json``."""
        return {} if self.check is None else self.check.to_dict()


@torch.no_grad()
def measured(flow: Flow, dataset: Dataset, seed: int, log_probs: np.ndarray) -> Fit:
    """Compares random test rows with samples; some seconds, of at most ``ROWS`` rows.

    A conditional flow gives one sample for every row, given its context. ``log_probs`` are the
    log-densities of all test rows.
    """
    manifest = dataset.manifest
    rows, train = (dataset.split(name).some(ROWS, seed) for name in ("test", "train"))
    density = flow(rows.context)
    is_image = manifest.levels is not None and is_picture(manifest.shape)
    count = TILES if is_image else len(rows.x)
    shape = () if density.batch_shape else (count,)
    sampled = density.sample_tensor(shape, generator=generator(seed, "report")).flatten(1)
    finite = sampled.isfinite().all(1)
    contexts = None if rows.context is None else rows.context[finite]
    y = Batch(sampled[finite], contexts)
    columns, found = _columns(manifest), None
    if not is_image and min(map(len, (rows.x, train.x, y.x))) >= LEAST:
        real, synthetic, known = (_frame(manifest, batch) for batch in (rows, y, train))
        found = check(real, synthetic, train=known, columns=columns, rows=ROWS, seed=seed)
    shapes = {} if found is None else found.shapes
    return Fit(
        [column.label for column in columns.modelled[: manifest.width]],
        is_image,
        rows.x.flatten(1),
        y.x,
        len(sampled) - len(y.x),
        found,
        np.array([shapes.get(name, np.nan) for name in columns.features[: manifest.width]]),
        list(_least_likely(flow, dataset, log_probs)),
    )


def _least_likely(
    flow: Flow, dataset: Dataset, log_probs: np.ndarray
) -> Iterator[tuple[str, str, str]]:
    """Yields the numbers of the least likely test rows in the source, log-densities, reasons."""
    split, places = dataset.split("test"), np.argsort(log_probs, kind="stable")[:UNLIKELY]
    order = torch.from_numpy(places).argsort().argsort()
    rows = subset(split, torch.from_numpy(places)).resident.take(order)
    numbers = dataset.column(dataset.manifest.of("test"), "row")[places].tolist()
    shape = dataset.manifest.shape
    explained = len(shape) == 1 and shape[0] <= EXPLAINED
    found = flow.explain(rows.x, context=rows.context) if explained else None
    for k, (number, log_prob) in enumerate(zip(numbers, log_probs[places], strict=True)):
        reasons = [] if found is None else found.reasons(k, at_most=math.inf)
        yield str(number), f"{log_prob:.2f}", "; ".join(reasons)


def _columns(manifest: Manifest) -> Columns:
    """Returns the columns of rows, x[0], x[1], … without names, and those of contexts."""
    names = (f"x[{k}]" for k in range(manifest.width))
    columns = manifest.columns or [Column(name, "number", "float64") for name in names]
    contexts = manifest.context.columns if manifest.context else ()
    return Columns([*columns, *contexts], "arrow")


def _frame(manifest: Manifest, batch: Batch) -> pa.Table:
    """Returns the columns of rows and their contexts by name."""
    numbers = batch.x.flatten(1).double().numpy()
    if batch.context is not None:
        codes = manifest.context.columns.from_one_hot(batch.context.double().numpy())
        numbers = np.concatenate([numbers, codes], 1)
    return _columns(manifest).decode(numbers)
