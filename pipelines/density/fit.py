r"""The fit of a trained flow to the test rows: samples, latents, the least likely rows.

Two samples of n and m rows are compared by

* columns: the Kolmogorov-Smirnov distance, :math:`\sup_t |F_x(t) - F_y(t)|`;
* whole rows: the energy distance :math:`2 E|X - Y| - E|X - X'| - E|Y - Y'|`, in columns divided
  by their pooled standard deviations.

Each is computed again for ``PERMUTATIONS`` random partitions of the pooled rows into n and m,
which are as likely as the true one if both samples have one distribution. The largest of K columns
is compared with the largest of K. That needs no assumption, with or without ties.

If latents are to be N(0, I), the probability integral transform of a row is
:math:`F_{\chi^2_D}(\|u\|^2)`, uniform on (0, 1) for a true flow. Rows near 1 are further out than
the flow predicts.

Sources: Energy statistics: A class of statistics based on distances (Székely, Rizzo, 2013),
Journal of Statistical Planning and Inference 143; Testing Statistical Hypotheses (Lehmann, Romano,
2005), chapter 15, for permutations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow.dataset
import torch
from scipy import stats
from torch import Tensor

from ebflow.bases import StandardNormal
from ebflow.flow import Flow
from ebflow.randomness import ContentGenerator, generator
from pipelines.data.dataset import Dataset
from pipelines.reporting.style import is_picture

ROWS = 1000
"""Most test rows that are compared with as many samples."""

TILES = 64
"""Samples of images, which are only shown."""

PERMUTATIONS = 99
LEVEL = 0.95

COMPARED = {
    "columns": "columns, Kolmogorov-Smirnov distance",
    "rows": "rows, energy distance",
    "latents": "latents, distance of the PIT from uniform",
}
"""Comparisons of test rows and samples, from single columns to whole rows."""


@dataclass(frozen=True)
class Difference:
    """Distances, and their size by chance.

    If there is no difference, the largest distance is below ``bound`` with probability 0.95, and
    at least of its size with probability ``p_value``.
    """

    values: Tensor
    bound: float
    p_value: float

    @property
    def largest(self) -> float:
        """The largest distance."""
        return float(self.values.max())


class Unlikely(NamedTuple):
    """The least likely test rows, the least first."""

    rows: np.ndarray  # their numbers in the source
    log_probs: np.ndarray  # their log-densities in nats
    x: np.ndarray  # their raw values, with shape (n, D)


@dataclass(frozen=True)
class Fit:
    """Test rows beside samples, and the least likely test rows.

    ``apart`` has the differences by their names in ``COMPARED``: of columns and rows of tables,
    and of latents if the base is N(0, I); pictures have rows if it is not.
    """

    names: list[str]  # of the columns with their units; x[0], x[1], … of rows without names
    is_image: bool  # True if rows are shown as images
    x: Tensor  # random test rows with shape (n, D), in raw units
    y: Tensor  # samples with shape (m, D)
    lost: int  # samples that are not finite, and left out
    pit: Tensor | None  # the transform of the rows' latents with shape (n,) if the base is N(0, I)
    apart: dict[str, Difference]
    least: Unlikely

    @property
    def warnings(self) -> list[str]:
        """A sentence if samples were left out."""
        if not self.lost:
            return []
        return [
            f"{self.lost} of {self.lost + len(self.y)} samples are not finite: the flow's inverse "
            "overflows. Train for longer, or lower --train.lr"
        ]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The differences, and the name of the column that differs most."""
        return [
            {"what": COMPARED[what],
             "where": self.names[int(found.values.argmax())] if what == "columns" else "",
             "value": found.largest, "bound": found.bound, "p_value": found.p_value}
            for what, found in self.apart.items()
        ]  # fmt: skip


@torch.no_grad()
def measured(flow: Flow, dataset: Dataset, seed: int, log_probs: np.ndarray) -> Fit:
    """Compares random test rows with samples; O(n²) in rows, at most ``ROWS``.

    A conditional flow gives one sample for every row, given its context; the bounds are then
    conservative. ``log_probs`` are the log-densities of all test rows.
    """
    split, manifest = dataset.split("test"), dataset.manifest
    x, context = next(split.shuffled(min(len(split), ROWS), seed=seed))
    density, pit = flow(context), None
    picture = manifest.levels is not None and is_picture(manifest.shape)
    if isinstance(density.base, StandardNormal):
        pit = radii(density.to_latent(x, generator=ContentGenerator(seed)))
    count = TILES if picture and pit is not None else ROWS
    shape = () if density.batch_shape else (count,)
    sampled = density.sample_tensor(shape, generator=generator(seed, "report")).flatten(1)
    y = sampled[sampled.isfinite().all(1)]
    permuted, apart = generator(seed, "permutations"), {}
    if not picture:
        apart["columns"] = compared(columns, x, y, permuted)
    if not picture or pit is None:
        apart["rows"] = compared(rows, x, y, permuted)
    if pit is not None:
        apart["latents"] = uniform(pit)
    named = manifest.columns
    names = [f"x[{k}]" for k in range(manifest.width)] if named is None else named.labels
    lost, least = len(sampled) - len(y), unlikely(dataset, log_probs)
    return Fit(names, picture, x, y, lost, pit, apart, least)


def unlikely(dataset: Dataset, log_probs: np.ndarray, count: int = 10) -> Unlikely:
    """Returns the least likely test rows, given the log-densities of all in order."""
    places = np.argsort(log_probs, kind="stable")[:count]
    files = [str(dataset.folder / shard.file) for shard in dataset.manifest.of("test")]
    found = pyarrow.dataset.dataset(files).take(places, columns=["row", "x"])
    x = np.array(found["x"].to_pylist())
    return Unlikely(found["row"].to_numpy(), log_probs[places], x)


Distances = Callable[[Tensor, Tensor], Tensor]
"""A function of pooled rows with shape (n + m, D) and of P partitions, each a mask of the first
sample, (P, n + m). It returns the distances of each partition, with shape (P, …)."""


def compared(distances: Distances, x: Tensor, y: Tensor, generator: torch.Generator) -> Difference:
    """Compares samples with shapes (n, D) and (m, D), and random partitions of them."""
    pooled = torch.cat([x, y]).double()
    true = torch.arange(len(pooled)) < len(x)
    orders = (torch.randperm(len(pooled), generator=generator) for _ in range(PERMUTATIONS))
    values = distances(pooled, torch.stack([true, *(true[order] for order in orders)]))
    largest = values.flatten(1).amax(1)
    p_value = (largest >= largest[0]).double().mean()
    return Difference(values[0], float(largest[1:].quantile(LEVEL)), float(p_value))


def columns(pooled: Tensor, first: Tensor) -> Tensor:
    """Returns the distances of columns, with shape (P, D). O(P D (n + m))."""
    weights, distances = _weights(first), []
    for column in pooled.mT:
        values, order = column.sort()
        last = torch.cat([values[1:] > values[:-1], torch.tensor([True])])  # of equal values
        distances.append(weights[:, order].cumsum(1)[:, last].abs().amax(1))
    return torch.stack(distances, 1)


def rows(pooled: Tensor, first: Tensor) -> Tensor:
    """Returns the distance of whole rows, with shape (P, 1). O((n + m)² (D + P))."""
    scaled = pooled / pooled.std(0).clamp_min(torch.finfo(pooled.dtype).tiny)
    weights = _weights(first).to(scaled)
    return -((weights @ torch.cdist(scaled, scaled)) * weights).sum(1, keepdim=True)


def _weights(first: Tensor) -> Tensor:
    """Returns 1/n for the rows of the first sample, −1/m for the others, (P, n + m)."""
    n = first[0].sum()
    return first / n - (~first) / (first.shape[1] - n)


def radii(u: Tensor) -> Tensor:
    """Returns F(‖u‖²) of latents (N, *latent), with shape (N,); F: χ² with D degrees."""
    squares = u.flatten(1).double().square()
    return torch.from_numpy(stats.chi2(squares.shape[1]).cdf(squares.sum(1).numpy()))


def uniform(values: Tensor) -> Difference:
    """Returns the Kolmogorov-Smirnov distance of numbers with shape (N,) from U(0, 1)."""
    found = stats.ks_1samp(values.double().numpy(), stats.uniform.cdf)
    bound = stats.kstwo.ppf(LEVEL, len(values))
    return Difference(torch.tensor([found.statistic]), float(bound), float(found.pvalue))
