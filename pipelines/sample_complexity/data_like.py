"""Denoisers of distributions fitted to images: their errors at every noise.

One network learns all noise levels. Columns of rows beside those in ``rows.py``:
``distribution``; ``by_level_l2`` and ``by_level_d``, errors at each level. Errors grow as √D.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ebflow.complexity.denoisers import PreconditionedDenoisers, ResidualNetwork
from ebflow.complexity.errors import Denoiser, measures, over_levels
from ebflow.complexity.truths import Truth, load
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.config import DenoiserCell
from pipelines.sample_complexity.training import TrainingSets, train

LEAST, WIDEST = 0.2, 20.0  # The noise levels, in units of a feature's standard deviation
DISTANCE = 4.0  # The distance of the added mode, in radii of the distribution
DELTA = 0.1  # The mass δ of the quantile error
TEST = 100  # Test points of each component at every level
RATE = 2e-3  # The initial learning rate
LEARNER = "residual networks"  # The name in the column ``learner``


def denoisers(cell: DenoiserCell) -> Iterator[dict[str, Any]]:
    """Yields the errors of all networks."""
    plain = load(cell.distribution)
    truth = plain.with_rare(cell.eta, distance=DISTANCE) if cell.eta else plain
    measure = Measure(cell.seed, truth, ladder(WIDEST, LEAST, cell.levels), TEST)
    constants = {
        "panel": "truths", "distribution": cell.distribution, "size": truth.clean.size,
        "eta": cell.eta,
    }  # fmt: skip
    for columns in _trained(cell, measure):
        yield columns | constants


def ladder(highest: float, least: float, steps: int) -> list[float]:
    """Returns ``steps`` + 1 noise levels in geometric progression, the highest first."""
    return [highest * (least / highest) ** (k / steps) for k in range(steps + 1)]


@dataclass(frozen=True)
class Measure:
    """Measurements of denoisers of a distribution."""

    seed: int  #: The seed of the study
    truth: Truth  #: The distribution
    levels: list[float]  #: The noise levels, the largest first
    points: int  #: Test points of each component at every level

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
        noises = [derive(self.seed, "test", one, f"{sigma:g}") for one in sets]
        tests = [truth.stratified(self.points, sigma, generator=noise) for noise in noises]
        denoised = denoise(torch.stack([test.noisy for test in tests]), sigma)
        each = [
            measures((one - truth.denoise(test.noisy, sigma)).norm(dim=-1) / sigma, test, deltas)
            for one, test in zip(denoised, tests, strict=True)
        ]
        return {name: torch.stack([one[name] for one in each]) for name in each[0]}


def _noise(cell: DenoiserCell, name: str) -> torch.Generator:
    return derive(cell.seed, "truths", name, cell.distribution, cell.first)


def _trained(cell: DenoiserCell, measure: Measure) -> Iterator[dict[str, Any]]:
    """Yields the rows of all networks, after every length of training."""
    sets = _training_sets(cell, measure.truth)
    size, start = sets.clean.shape[2], _noise(cell, "start residual")
    ensemble = PreconditionedDenoisers(
        [ResidualNetwork(size, cell.width, cell.blocks, start) for _ in sets.owner]
    )
    training = train(
        ensemble, sets, generator=_noise(cell, "train residual"), lengths=cell.lengths,
        least=LEAST, highest=WIDEST, rows=cell.batch, lr=RATE,
    )  # fmt: skip
    for step in training:
        errors = measure.errors(
            lambda x, sigma: ensemble.denoise(x.float(), sigma), sets.columns["seed"].tolist()
        )
        yield {"learner": LEARNER, "step": step, **sets.columns, **errors}


def _training_sets(cell: DenoiserCell, truth: Truth) -> TrainingSets:
    def sample(index: int) -> tuple[Tensor, Tensor]:
        noise = derive(cell.seed, "truths", cell.distribution, index)
        clean, component = truth.clean.sample_with_components(max(cell.sizes), generator=noise)
        rare = (component == len(truth.clean.weights) - 1) & (truth.rare > 0)
        return clean.float(), rare

    return TrainingSets.sampled(sample, cell.sets, cell.sizes)
