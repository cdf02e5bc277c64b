"""How well a trained flow fits the test rows: samples beside them, latents, the least likely."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ebflow.bases import StandardNormal
from ebflow.data.loader import Dataset
from ebflow.data.manifest import Manifest
from ebflow.flow import Flow, FlowDistribution
from ebflow.randomness import RowGenerator, generator
from pipelines.density import goodness
from pipelines.density.goodness import Difference
from pipelines.reporting.pictures import is_picture

ROWS = 1000
"""Most test rows that are compared with as many samples."""

TILES = 64
"""Samples of pictures, which are looked at alone."""

WIDEST = 100
"""Most columns that are compared in pairs, and drawn: those that differ most."""


@dataclass(frozen=True)
class Fit:
    """Test rows beside samples.

    Attributes:
        x: Random test rows with shape (n, D), in raw units.
        y: Samples with shape (m, D).
        lost: Samples that are not finite, and left out.
        pit: The probability integral transform of the rows' latents with shape (n,); None where
            the base is not N(0, I).
        latents: That from the uniform law.
        rows: Rows as a whole; None of pictures whose latents have a transform.
        columns: The columns; None of pictures.
        chosen: The columns, by number, that are in ``pairs``.
        pairs: Pairs of these columns; None of pictures, and of one column.
    """

    x: Tensor
    y: Tensor
    lost: int
    pit: Tensor | None
    latents: Difference | None
    rows: Difference | None
    columns: Difference | None = None
    chosen: tuple[int, ...] = ()
    pairs: Difference | None = None

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

    Of a conditional flow there is a sample for every row, given its context: bounds are then too
    wide rather than too narrow.
    """
    split = dataset.split("test")
    x, context = next(split.shuffled(min(len(split), ROWS), seed=seed))
    density = flow(context)
    pit, picture = _transformed(density, x, seed), is_image(dataset.manifest)
    count = TILES if picture and pit is not None else ROWS
    shape = () if density.batch_shape else (count,)
    drawn = density.sample(shape, generator(seed, "report")).flatten(1)
    y = drawn[drawn.isfinite().all(1)]
    shared = {"x": x, "y": y, "lost": len(drawn) - len(y), "pit": pit,
            "latents": None if pit is None else goodness.uniform(pit)}  # fmt: skip
    permuted = generator(seed, "permutations")
    if picture:
        return Fit(**shared, rows=goodness.rows(x, y, permuted) if pit is None else None)
    columns = goodness.columns(x, y, permuted)
    chosen = columns.values.argsort(descending=True, stable=True)[:WIDEST].sort().values
    several = len(chosen) > 1
    pairs = goodness.pairs(x[:, chosen], y[:, chosen], permuted) if several else None
    rows = goodness.rows(x, y, permuted)
    return Fit(**shared, rows=rows, columns=columns, chosen=tuple(chosen.tolist()), pairs=pairs)


def is_image(manifest: Manifest) -> bool:
    """Returns whether rows are shown as pictures."""
    return manifest.levels is not None and is_picture(manifest.shape)


def _transformed(density: FlowDistribution, x: Tensor, seed: int) -> Tensor | None:
    if not isinstance(density.base, StandardNormal):
        return None
    return goodness.radii(density.to_latent(x, RowGenerator(seed, "dequantise", 0)))


def lines(fit: Fit, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns what was measured, from single columns to whole rows.

    Arguments:
        fit: What was measured.
        names: Of all columns.
    """
    found = []
    if fit.columns is not None:
        worst = names[int(fit.columns.values.argmax())]
        found.append(fit.columns.line("columns, Kolmogorov-Smirnov distance", worst))
    if fit.pairs is not None:
        where = " × ".join(names[k] for k in worst_pairs(fit, 1)[0])
        found.append(fit.pairs.line("pairs, total variation beyond their columns", where))
    if fit.rows is not None:
        found.append(fit.rows.line("rows, energy distance"))
    if fit.latents is not None:
        found.append(fit.latents.line("latents, distance of the PIT from uniform"))
    return found


def worst_pairs(fit: Fit, count: int) -> list[tuple[int, int]]:
    """Returns the pairs of columns that differ most, the worst first."""
    values, size = fit.pairs.values, len(fit.chosen)
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
    found, first = {}, 0
    for shard in dataset.manifest.of("test"):
        inside = places[(places >= first) & (places < first + shard.rows)]
        if len(inside):
            x, row = (np.concatenate(dataset.arrays(shard, name)) for name in ("x", "row"))
            found |= {k: Unlikely(int(row[k - first]), float(log_probs[k]), x[k - first])
                      for k in inside}  # fmt: skip
        first += shard.rows
    return [found[k] for k in places]
