"""Denoisers of distributions fitted to images: their errors at every noise, and their samples.

One network learns all noise levels, and samples by the probability flow. Columns of rows beside
those in ``rows.py``: ``distribution``; ``by_level_l2`` and ``by_level_d``, errors at each level;
and of samples ``excess`` (their mean −log q above that of true samples, nats), ``tv`` (of the
frequencies of components), ``w2`` (sliced), ``far_error`` (of the added mode's weight) and
``copied``, the share that is nearer to a training sample than all but 1 % of true samples are.
Errors grow as √D.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ebflow.complexity import mixture_distances
from ebflow.complexity.denoisers import PreconditionedDenoisers, ResidualNetwork
from ebflow.complexity.errors import Denoiser, measures, over_levels
from ebflow.complexity.samplers import NoisyScore, ladder, probability_flow
from ebflow.complexity.truths import Truth, load
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.config import DenoiserCell
from pipelines.sample_complexity.training import TrainingSets, train

LEAST, WIDEST = 0.2, 20.0
"""The noise levels, in units of a feature's standard deviation."""

DISTANCE = 4.0
"""The distance of the added mode, in radii of the distribution."""

DELTA = 0.1
"""The mass δ of the quantile error."""

TEST = 100
"""Test points of each component at every level."""

SLICES = 16
"""Directions of sliced distances."""

CHUNK = 10_000
"""Training samples per matrix of distances."""

NEAR = 0.01
"""The share of true samples that are as near to a training sample as copies are."""

RATE = 2e-3
"""The initial learning rate."""

LEARNER, EXACT, TRUE = "residual networks", "exact score", "true samples"
MISSING = "the distribution without the mode"
"""Names in the column ``learner``."""


def denoisers(cell: DenoiserCell) -> Iterator[dict[str, Any]]:
    """Yields errors and samples of all networks, and samples by the exact score."""
    plain = load(cell.distribution)
    truth = plain.with_rare(cell.eta, distance=DISTANCE) if cell.eta else plain
    true = truth.sample(cell.samples, sigma=LEAST, generator=_noise(cell, "true"))
    measure = Measure(cell, truth, ladder(WIDEST, LEAST, cell.levels), true)
    constants = {
        "panel": "truths", "distribution": cell.distribution, "size": truth.clean.size,
        "eta": cell.eta,
    }  # fmt: skip
    for columns in (*_trained(measure), *_floors(measure), *_without_mode(measure, plain)):
        yield columns | constants


@dataclass(frozen=True)
class Measure:
    """Measurements of denoisers of a distribution.

    Attributes:
        cell: The cell.
        truth: The distribution.
        levels: The noise levels, the largest first.
        true: Samples of the distribution at the least noise.
    """

    cell: DenoiserCell
    truth: Truth
    levels: list[float]
    true: Tensor

    def errors(self, denoise: Denoiser, sets: Sequence[int]) -> dict[str, Any]:
        """Returns the columns of errors, for networks that learned from these training sets.

        Each set has its own test points, so intervals over sets include their randomness.
        """
        levels = [self._errors_at(sigma, denoise, sets) for sigma in self.levels]
        names = {"by_level_l2": "sigma_l2", "by_level_d": f"sigma_d_{DELTA:g}"}
        by_level = {
            column: torch.stack([one[name] for one in levels], -1).float().tolist()
            for column, name in names.items()
        }
        return {**levels[-1], **over_levels(levels, DELTA), **by_level}

    def _errors_at(
        self, sigma: float, denoise: Denoiser, sets: Sequence[int]
    ) -> dict[str, Tensor]:
        deltas, truth = (DELTA, DELTA / len(self.levels)), self.truth
        noises = [derive(self.cell.seed, "test", one, f"{sigma:g}") for one in sets]
        tests = [truth.stratified(TEST, sigma, generator=noise) for noise in noises]
        denoised = denoise(torch.stack([test.noisy for test in tests]), sigma)
        each = [
            measures((one - truth.denoise(test.noisy, sigma)).norm(dim=-1) / sigma, test, deltas)
            for one, test in zip(denoised, tests, strict=True)
        ]
        return {name: torch.stack([one[name] for one in each]) for name in each[0]}

    def samples(self, score: NoisyScore, networks: int = 0) -> Tensor:
        """Returns samples of E networks, or of the exact score, with shape (E or 1, n, D).

        The flow starts at exact samples of the smoothed distribution, so that all differences
        are errors of the score.
        """
        rows, noise = max(1, networks) * self.cell.samples, _noise(self.cell, "samples")
        x = self.truth.sample(rows, sigma=self.levels[0], generator=noise)
        if not networks:
            return probability_flow(score, x, levels=self.levels)[None]
        x = x.float().view(networks, self.cell.samples, -1)
        return probability_flow(score, x, levels=self.levels).double()

    def quality(self, x: Tensor) -> dict[str, list[float]]:
        """Returns the distances of E samples with shape (E, n, D), column by column."""
        smoothed = self.truth.smoothed(LEAST)
        entropy = float(-smoothed.log_prob(self.true).mean())
        columns: dict[str, list[float]] = {"excess": [], "tv": [], "w2": [], "far_error": []}
        for rows in x:
            nearest = smoothed.responsibilities(rows).argmax(0)
            counts = torch.bincount(nearest, minlength=len(smoothed.weights))
            gaps = counts / len(rows) - smoothed.weights
            directions = derive(self.cell.seed, "slices")
            w2 = mixture_distances.sliced(rows, smoothed, SLICES, directions)
            columns["excess"].append(float(-smoothed.log_prob(rows).mean()) - entropy)
            columns["tv"].append(float(0.5 * gaps.abs().sum()))
            columns["w2"].append(w2)
            columns["far_error"].append(float(gaps[-1].abs()) if self.truth.rare else math.nan)
        return columns


def _noise(cell: DenoiserCell, name: str) -> torch.Generator:
    return derive(cell.seed, "truths", name, cell.distribution, cell.first)


def _trained(measure: Measure) -> Iterator[dict[str, Any]]:
    """Yields the rows of all networks, after every length of training."""
    cell = measure.cell
    sets = _training_sets(cell, measure.truth)
    size, start = sets.clean.shape[2], _noise(cell, "start residual")
    ensemble = PreconditionedDenoisers(
        [ResidualNetwork(size, cell.width, cell.blocks, start) for _ in sets.owner]
    )
    training = train(
        ensemble, sets, generator=_noise(cell, "train residual"), lengths=cell.lengths,
        least=LEAST, highest=WIDEST, rows=cell.batch, lr=RATE,
    )  # fmt: skip
    own = [sets.of(network) for network in range(ensemble.count)]
    near = [distances(measure.true, training_set).quantile(NEAR) for training_set in own]
    for step in training:
        x = measure.samples(ensemble.score, ensemble.count)
        copied = [float((distances(rows, of) < limit).double().mean())
                  for rows, of, limit in zip(x, own, near, strict=True)]  # fmt: skip
        errors = measure.errors(
            lambda x, sigma: ensemble.denoise(x.float(), sigma), sets.columns["seed"].tolist()
        )
        yield {"learner": LEARNER, "step": step, "copied": copied, **sets.columns,
               **errors, **measure.quality(x)}  # fmt: skip


def _floors(measure: Measure) -> Iterator[dict[str, Any]]:
    """Yields the distances of samples by the exact score, and of true samples."""
    cell, truth = measure.cell, measure.truth
    again = truth.sample(cell.samples, sigma=LEAST, generator=_noise(cell, "floors"))
    exact = measure.samples(truth.score)
    for learner, rows in ((EXACT, exact), (TRUE, again[None])):
        yield {"learner": learner, "seed": cell.first, **measure.quality(rows)}


def _without_mode(measure: Measure, plain: Truth) -> Iterator[dict[str, Any]]:
    """Yields the errors of the exact denoiser without the added mode, if there is one."""
    first = measure.cell.first
    if measure.cell.eta:
        errors = measure.errors(lambda x, sigma: plain.denoise(x[0], sigma)[None], [first])
        yield {"learner": MISSING, "seed": first, **errors}


def _training_sets(cell: DenoiserCell, truth: Truth) -> TrainingSets:
    def sample(index: int) -> tuple[Tensor, Tensor]:
        noise = derive(cell.seed, "truths", cell.distribution, index)
        clean, component = truth.clean.sample_with_components(max(cell.sizes), generator=noise)
        rare = (component == len(truth.clean.weights) - 1) & (truth.rare > 0)
        return clean.float(), rare

    return TrainingSets.sampled(sample, cell.sets, cell.sizes)


def distances(x: Tensor, training: Tensor) -> Tensor:
    """Returns the distance of each row to the nearest training sample."""
    parts = training.split(CHUNK)
    return torch.stack([torch.cdist(x.float(), part).amin(1) for part in parts]).amin(0)
