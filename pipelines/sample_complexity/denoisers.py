"""Denoisers of laws that look like data: their errors at every noise, and what they sample.

One network knows all noises, and samples by the probability flow; it is measured after several
lengths of its training. Columns besides those of every table: ``law``, ``eta`` (the weight of a
mode that was implanted; 0: none), ``n_far`` (training samples of it), at the least noise and
√D-fold the errors of ``ebflow.complexity.errors.measures``, ``by_level_l2`` and ``by_level_d``,
level by level; and of samples ``excess`` (their mean −log q above that of true samples, nats),
``tv`` (of the frequencies of components), ``w2`` (sliced), ``far_error`` (of the implanted mode's
weight) and ``copied``: the share that lies nearer to a training sample than all but 1 % of true
samples do.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ebflow.complexity import mixture_distances
from ebflow.complexity.errors import Denoiser, measures, over_levels
from ebflow.complexity.samplers import NoisyScore, ladder, probability_flow
from ebflow.complexity.truths import Truth, load
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.config import DenoiserCell
from pipelines.sample_complexity.ensembles import train_in_parts
from pipelines.sample_complexity.preconditioned import (
    Preconditioned,
    residual_denoisers,
    unet_denoisers,
)
from pipelines.sample_complexity.rows import frame
from pipelines.sample_complexity.training_sets import TrainingSets

LEAST, WIDEST = 0.2, 20.0
"""The noises, in units of the deviation of a feature."""

DISTANCE = 4.0
"""That of an implanted mode, in radii of the law."""

DELTA = 0.1
"""The mass δ of the quantile error."""

TEST = 100
"""Test points of each component at every level."""

SLICES = 16
"""Directions of sliced distances."""

TOGETHER = 10_000
"""Training samples that distances to are taken at once."""

NEAR = 0.01
"""The share of true samples that are as near to a training sample as copies are."""

RATES = {"residual": 2e-3, "unet": 5e-3}
"""The rate of training at its start."""

MISSING = "the law without the mode"
"""What rows call the exact denoiser of that."""

LEARNERS = {"residual": "residual networks", "unet": "U-Nets"}
"""What rows call them."""


def denoisers(cell: DenoiserCell) -> pd.DataFrame:
    """Returns the errors and samples of every network, and those of the exact score."""
    plain = load(cell.law)
    truth = plain.with_rare(cell.eta, distance=DISTANCE) if cell.eta else plain
    true = truth.sample(cell.samples, sigma=LEAST, generator=_noise(cell, "true"))
    yardstick = Yardstick(cell, truth, ladder(WIDEST, LEAST, cell.levels), true)
    parts = [*_trained(yardstick)]
    if cell.net == "residual":
        parts += _floors(yardstick)
        if cell.eta:
            parts.append(_without_mode(yardstick, plain))
    constants = {"panel": "truths", "law": cell.law, "size": truth.clean.size, "eta": cell.eta}
    return pd.concat([frame(part | constants) for part in parts], ignore_index=True)


@dataclass(frozen=True)
class Yardstick:
    """What denoisers are measured by.

    Attributes:
        cell: The cell.
        truth: The law.
        levels: The noises, from the widest to the least.
        true: Samples of the law at the least noise.
    """

    cell: DenoiserCell
    truth: Truth
    levels: list[float]
    true: Tensor

    def errors(self, denoise: Denoiser, sets: Sequence[int]) -> dict[str, Any]:
        """Returns the columns of errors, a number or one a level of every network.

        Each training set has test points of its own: what they add is in intervals over sets.
        """
        found = [self._errors_at(sigma, denoise, sets) for sigma in self.levels]
        names = {"by_level_l2": "sigma_l2", "by_level_d": f"sigma_d_{DELTA:g}"}
        by_level = {
            column: torch.stack([one[name] for one in found], -1).float().tolist()
            for column, name in names.items()
        }
        return {**found[-1], **over_levels(found, DELTA), **by_level}

    def _errors_at(
        self, sigma: float, denoise: Denoiser, sets: Sequence[int]
    ) -> dict[str, Tensor]:
        deltas, truth = (DELTA, DELTA / len(self.levels)), self.truth
        noises = [derive(self.cell.seed, "test", one, f"{sigma:g}") for one in sets]
        tests = [truth.stratified(TEST, sigma, generator=noise) for noise in noises]
        denoised = denoise(torch.stack([test.noisy for test in tests]), sigma)
        gaps = [one - truth.denoise(test.noisy, sigma)
                for one, test in zip(denoised, tests, strict=True)]  # fmt: skip
        each = [measures(gap.norm(dim=-1) / sigma, test, deltas)
                for gap, test in zip(gaps, tests, strict=True)]  # fmt: skip
        return {name: torch.stack([one[name] for one in each]) for name in each[0]}

    def samples(self, score: NoisyScore, count: int = 0) -> Tensor:
        """Returns samples of so many networks, or of the exact score: (E or 1, n, D).

        They begin at the smoothed law itself, drawn exactly: what they are off by is the score's.
        """
        rows, noise = max(1, count) * self.cell.samples, _noise(self.cell, "samples")
        x = self.truth.sample(rows, sigma=self.levels[0], generator=noise)
        if not count:
            return probability_flow(score, x, levels=self.levels)[None]
        x = x.float().view(count, self.cell.samples, -1)
        return probability_flow(score, x, levels=self.levels).double()

    def quality(self, x: Tensor) -> dict[str, list[float]]:
        """Returns how far samples with shape (E, n, D) are from the law, column by column."""
        law = self.truth.smoothed(LEAST)
        entropy = float(-law.log_prob(self.true).mean())
        found: dict[str, list[float]] = {"excess": [], "tv": [], "w2": [], "far_error": []}
        for rows in x:
            nearest = law.responsibilities(rows).argmax(0)
            gaps = torch.bincount(nearest, minlength=len(law.weights)) / len(rows) - law.weights
            directions = derive(self.cell.seed, "slices")
            found["excess"].append(float(-law.log_prob(rows).mean()) - entropy)
            found["tv"].append(float(0.5 * gaps.abs().sum()))
            found["w2"].append(mixture_distances.sliced(rows, law, SLICES, directions)[1])
            found["far_error"].append(float(gaps[-1].abs()) if self.truth.rare else math.nan)
        return found


def _noise(cell: DenoiserCell, name: str) -> torch.Generator:
    return derive(cell.seed, "truths", name, cell.law, cell.first)


def _trained(yardstick: Yardstick) -> Iterator[dict[str, Any]]:
    """Yields the rows of all networks, after every length of training."""
    cell = yardstick.cell
    sets = _drawn(cell, yardstick.truth)
    nets = _networks(cell, sets)
    training = train_in_parts(
        nets, sets, generator=_noise(cell, f"train {cell.net}"), lengths=cell.lengths,
        least=LEAST, highest=WIDEST, rows=cell.batch, lr=RATES[cell.net],
    )  # fmt: skip
    own = [sets.of(index) for index in range(nets.count)]
    near = [_distance(yardstick.true, training_set).quantile(NEAR) for training_set in own]
    for step in training:
        x = yardstick.samples(nets.score, nets.count)
        copied = [float((_distance(rows, of) < limit).double().mean())
                  for rows, of, limit in zip(x, own, near, strict=True)]  # fmt: skip
        errors = yardstick.errors(
            lambda x, sigma: nets.denoise(x.float(), sigma), sets.columns["seed"].tolist()
        )
        yield {"learner": LEARNERS[cell.net], "step": step, "copied": copied, **sets.columns,
               **errors, **yardstick.quality(x)}  # fmt: skip


def _floors(yardstick: Yardstick) -> Iterator[dict[str, Any]]:
    """Yields what samples of the exact score, and true ones, are off."""
    cell, truth = yardstick.cell, yardstick.truth
    again = truth.sample(cell.samples, sigma=LEAST, generator=_noise(cell, "floors"))
    exact = yardstick.samples(truth.score)
    for learner, rows in (("exact score", exact), ("true samples", again[None])):
        yield {"learner": learner, "seed": cell.first, **yardstick.quality(rows)}


def _without_mode(yardstick: Yardstick, plain: Truth) -> dict[str, Any]:
    """Returns the errors of the exact denoiser of the law without the implanted mode."""
    first = yardstick.cell.first
    errors = yardstick.errors(lambda x, sigma: plain.denoise(x[0], sigma)[None], [first])
    return {"learner": MISSING, "seed": first, **errors}


def _drawn(cell: DenoiserCell, truth: Truth) -> TrainingSets:
    def draw(index: int) -> tuple[Tensor, Tensor]:
        noise = derive(cell.seed, "truths", cell.law, index)
        clean, component = truth.clean.sample_with_components(max(cell.sizes), generator=noise)
        rare = (component == len(truth.clean.weights) - 1) & (truth.rare > 0)
        return clean.float(), rare

    return TrainingSets.drawn(draw, torch.arange(cell.first, cell.first + cell.count), cell.sizes)


def _networks(cell: DenoiserCell, sets: TrainingSets) -> Preconditioned:
    shape = len(sets.owner), sets.clean.shape[2]
    options = {"width": cell.width, "generator": _noise(cell, f"start {cell.net}")}
    if cell.net == "unet":
        return unet_denoisers(*shape, **options)
    return residual_denoisers(*shape, blocks=cell.blocks, **options)


def _distance(x: Tensor, training: Tensor) -> Tensor:
    """Returns the distance of each row to the nearest of a training set's."""
    parts = training.split(TOGETHER)
    return torch.stack([torch.cdist(x.float(), part).amin(1) for part in parts]).amin(0)
