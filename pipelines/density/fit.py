"""The fit of a trained flow to the test rows: samples, latents, the least likely rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.dataset
import torch
from torch import Tensor

from ebflow.bases import StandardNormal
from ebflow.distribution import FlowDistribution
from ebflow.flow import Flow
from ebflow.randomness import ContentGenerator, generator
from pipelines.data.dataset import Dataset
from pipelines.data.manifest import Manifest
from pipelines.density import goodness
from pipelines.density.goodness import Difference
from pipelines.reporting.style import is_picture

ROWS = 1000
"""Most test rows that are compared with as many samples."""

TILES = 64
"""Samples of images, which are only shown."""

WIDEST = 100
"""Most columns that are compared in pairs and shown: those that differ most."""


COMPARED = {
    "columns": "columns, Kolmogorov-Smirnov distance",
    "pairs": "pairs, total variation beyond their columns",
    "rows": "rows, energy distance",
    "latents": "latents, distance of the PIT from uniform",
}
"""Comparisons of test rows and samples, from single columns to whole rows."""


@dataclass(frozen=True)
class Fit:
    """Test rows beside samples.

    Attributes:
        x: Random test rows with shape (n, D), in raw units.
        y: Samples with shape (m, D).
        lost: Samples that are not finite, and left out.
        pit: The probability integral transform of the rows' latents with shape (n,); None where
            the base is not N(0, I).
        apart: How they differ in what of ``COMPARED`` was compared: of pictures the rows, if their
            latents have no transform; of tables columns, their pairs if there are several, and
            rows; latents where they have a transform.
        chosen: The columns, by number, that are in pairs.
    """

    x: Tensor
    y: Tensor
    lost: int
    pit: Tensor | None
    apart: dict[str, Difference]
    chosen: tuple[int, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """A sentence if samples were left out."""
        if not self.lost:
            return []
        return [
            f"{self.lost} of {self.lost + len(self.y)} samples are not finite: the flow's inverse "
            "overflows. Train for longer, or lower --train.lr"
        ]


@dataclass(frozen=True)
class Unlikely:
    """A test row, its number in the source, its log-density in nats, its D raw values."""

    row: int
    log_prob: float
    x: np.ndarray


@torch.no_grad()
def measured(flow: Flow, dataset: Dataset, seed: int) -> Fit:
    """Compares random test rows with samples; O(n²) in rows, at most ``ROWS``.

    A conditional flow gives one sample for every row, given its context; the bounds are then
    conservative.
    """
    split = dataset.split("test")
    x, context = next(split.shuffled(min(len(split), ROWS), seed=seed))
    density = flow(context)
    pit, picture = _transformed(density, x, seed), is_image(dataset.manifest)
    count = TILES if picture and pit is not None else ROWS
    shape = () if density.batch_shape else (count,)
    sampled = density.sample_tensor(shape, generator=generator(seed, "report")).flatten(1)
    y = sampled[sampled.isfinite().all(1)]
    permuted, apart, chosen = generator(seed, "permutations"), {}, []
    if not picture:
        apart["columns"] = goodness.compared(goodness.columns, x, y, permuted)
        order = apart["columns"].values.argsort(descending=True, stable=True)
        chosen = order[:WIDEST].sort().values.tolist()
    if len(chosen) > 1:
        apart["pairs"] = goodness.compared(goodness.pairs, x[:, chosen], y[:, chosen], permuted)
    if not picture or pit is None:
        apart["rows"] = goodness.compared(goodness.rows, x, y, permuted)
    if pit is not None:
        apart["latents"] = goodness.uniform(pit)
    return Fit(x, y, len(sampled) - len(y), pit, apart, tuple(chosen))


def is_image(manifest: Manifest) -> bool:
    """Returns True if rows are shown as images."""
    return manifest.levels is not None and is_picture(manifest.shape)


def names(manifest: Manifest) -> list[str]:
    """Returns the names of all columns with their units; x[0], x[1], … of rows without."""
    if manifest.columns is not None:
        return manifest.columns.labels
    return [f"x[{k}]" for k in range(manifest.width)]


def _transformed(density: FlowDistribution, x: Tensor, seed: int) -> Tensor | None:
    if not isinstance(density.base, StandardNormal):
        return None
    return goodness.radii(density.to_latent(x, generator=ContentGenerator(seed)))


def lines(fit: Fit, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns what was measured, and where it differs most, from single columns to whole rows.

    Arguments:
        fit: What was measured.
        names: Of all columns.
    """
    where = {}
    if "columns" in fit.apart:
        where["columns"] = names[int(fit.apart["columns"].values.argmax())]
    if "pairs" in fit.apart:
        where["pairs"] = " × ".join(names[k] for k in worst_pairs(fit, 1)[0])
    return [
        {"what": COMPARED[what], "where": where.get(what, ""), "value": found.largest,
         "bound": found.bound, "p_value": found.p_value}
        for what, found in fit.apart.items()
    ]  # fmt: skip


def worst_pairs(fit: Fit, count: int) -> list[tuple[int, int]]:
    """Returns the pairs of columns that differ most, the worst first."""
    values, size = fit.apart["pairs"].values, len(fit.chosen)
    left, right = torch.triu_indices(size, size, 1)
    order = values[left, right].argsort(descending=True, stable=True)[:count]
    return [(fit.chosen[left[k]], fit.chosen[right[k]]) for k in order]


def unlikely(dataset: Dataset, log_probs: np.ndarray, count: int = 10) -> list[Unlikely]:
    """Returns the least likely test rows, the least first.

    Arguments:
        dataset: The data.
        log_probs: Of all test rows, in their order.
        count: How many at most.
    """
    places = np.argsort(log_probs, kind="stable")[:count]
    files = [str(dataset.folder / shard.file) for shard in dataset.manifest.of("test")]
    found = pyarrow.dataset.dataset(files).take(places, columns=["row", "x"]).to_pylist()
    return [
        Unlikely(one["row"], float(log_probs[place]), np.array(one["x"]))
        for place, one in zip(places, found, strict=True)
    ]
