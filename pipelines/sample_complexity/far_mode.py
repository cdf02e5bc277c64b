"""A bulk with a far mode: errors of a finite class and of networks, and the networks' samples."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ebflow.complexity import errors, mixture_distances
from ebflow.complexity.classes import cumulative_losses, erm, far_class
from ebflow.complexity.denoisers import RectifiedDenoisers
from ebflow.complexity.instances import Instance, far_mode, worst_eta
from ebflow.complexity.samplers import NoisyScore, ladder, reverse_sde
from ebflow.complexity.truths import Truth
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.config import (
    DELTAS,
    EPSILON,
    FiniteCell,
    LearnerCell,
    NetworkCell,
    SamplerCell,
)
from pipelines.sample_complexity.rows import frame, geometric
from pipelines.sample_complexity.training import TrainingSets, train

OF_CLASS = (2, 1.1, 4.0)
"""The grid of m of the finite class: the first, the ratio, and the end over the inverse of η.

The end is eight times as large as the m at which a far sample decides.
"""

OF_NETWORKS = (7, 2.0, 3.0)
"""The grid of m of networks.

With R/σ in powers of 2, log 2/η, where half of the sets have a far sample, lies at the same place
between two of its points.
"""

AT_ONCE = 40
"""About the number of networks that train at once: their activations stay in the cache."""

TEST = 2000
"""Test points of each component."""

WIDEST = 2.0
"""The largest noise of the sampler, in units of R."""

CHUNK = 500
"""Samples of each network that are computed at once."""


def grid(of: tuple[int, float, float], ratio: float) -> list[int]:
    """Returns the m of a learner at an R/σ."""
    first, step, reach = of
    return geometric(first, reach / worst_eta(ratio, EPSILON), step)


def finite(cell: FiniteCell) -> pd.DataFrame:
    """Returns the errors of what a finite class learns, for every m and training set."""
    eta, sizes = worst_eta(cell.ratio, EPSILON), grid(OF_CLASS, cell.ratio)
    truth = far_mode(cell.ratio, eta)
    scores = [hypothesis.score for hypothesis in far_class(truth)]
    test = truth.stratified(TEST, generator=derive(cell.seed, "test"))
    exact = truth.smoothed.score(test.noisy)
    gaps = torch.stack([score(test.noisy) - exact for score in scores])
    of_each = errors.summary(truth.sigma * gaps.norm(dim=-1), test, DELTAS)
    parts = []
    for index in range(cell.first, cell.first + cell.count):
        noise = derive(cell.seed, "finite class", f"{cell.ratio:g}", index)
        clean, z, component = truth.sample(sizes[-1], generator=noise)
        losses = cumulative_losses(scores, *truth.noisy(clean, z), sizes)
        chosen = erm(losses, generator=noise)
        far = component.cumsum(0)[torch.tensor(sizes) - 1]
        parts.append(frame({
            "panel": "finite", "learner": "finite class", "ratio": cell.ratio, "size": 1,
            "eta": eta, "m": sizes, "seed": index, "n_far": far,
            **{name: values[chosen] for name, values in of_each.items()},
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def networks(cell: NetworkCell) -> pd.DataFrame:
    """Returns the errors of networks of one noise level, for every m and training set."""
    sizes = grid(OF_NETWORKS, cell.ratio)
    seeds = torch.arange(cell.first, cell.first + cell.count)
    groups = seeds.split(max(1, AT_ONCE // len(sizes)))
    parts = [_group(cell, sizes, int(group[0]), len(group)) for group in groups]
    return pd.concat(parts, ignore_index=True)


def _group(cell: NetworkCell, sizes: list[int], first: int, count: int) -> pd.DataFrame:
    eta = cell.rarity * worst_eta(cell.ratio, EPSILON)
    truth = far_mode(cell.ratio, eta, size=cell.size, dtype=torch.float32)
    name = f"networks {cell.ratio:g} {cell.size}"
    sample = partial(_training_set, cell, truth, max(sizes), name, once=cell.noise == "once")
    sets = TrainingSets.sampled(sample, first, count, sizes)
    noise = derive(cell.seed, name, cell.noise, cell.panel, "train", first)
    ensemble = _untrained(cell, truth, sets, noise)
    for _ in train(
        ensemble, sets, generator=noise, lengths=(cell.steps,), least=truth.sigma, rows=cell.batch
    ):
        pass
    test = truth.stratified(TEST, generator=derive(cell.seed, "test"))
    gaps = ensemble.score(test.noisy, truth.sigma) - truth.smoothed.score(test.noisy)
    return frame({
        "panel": cell.panel, "learner": f"networks, noise {cell.noise}",
        "ratio": cell.ratio, "size": cell.size, "width": cell.width, "depth": cell.depth,
        "rarity": cell.rarity, "eta": eta, **sets.columns,
        **errors.summary(truth.sigma * gaps.norm(dim=-1), test, DELTAS),
    })  # fmt: skip


def _training_set(
    cell: LearnerCell, truth: Instance, size: int, name: str, index: int, *, once: bool
) -> tuple[Tensor, ...]:
    """Returns clean samples, which of them are far, and, if ``once``, their only noise."""
    clean, z, component = truth.sample(size, generator=derive(cell.seed, name, index))
    return (clean, component > 0, *([z] if once else []))


def _untrained(
    cell: LearnerCell, truth: Instance, sets: TrainingSets, generator: torch.Generator
) -> RectifiedDenoisers:
    return RectifiedDenoisers(
        len(sets.owner), cell.size, radius=cell.ratio * truth.sigma, width=cell.width,
        depth=cell.depth, generator=generator,
    )  # fmt: skip


def samplers(cell: SamplerCell) -> pd.DataFrame:
    """Returns errors and distances of samples, after every length of training.

    Beside the networks: samples by the exact score, and samples of the distribution itself.
    """
    name, eta = f"samplers {cell.ratio:g} {cell.size}", worst_eta(cell.ratio, EPSILON)
    truth = far_mode(cell.ratio, eta, size=cell.size, dtype=torch.float32)
    levels = ladder(WIDEST * cell.ratio * truth.sigma, truth.sigma, cell.levels)
    sampler = Sampler(cell, truth, levels)
    sample = partial(_training_set, cell, truth, max(cell.sizes), name, once=False)
    sets = TrainingSets.sampled(sample, cell.first, cell.count, cell.sizes)
    noise = derive(cell.seed, name, "train", cell.first)
    ensemble = _untrained(cell, truth, sets, noise)
    training = train(
        ensemble, sets, generator=noise, lengths=cell.lengths, least=truth.sigma,
        highest=levels[0], rows=cell.batch,
    )  # fmt: skip
    parts = [
        sampler.rows(sampler.samples(ensemble.score, name, ensemble.count), learner="networks",
                     step=step, **sets.columns, **sampler.errors(ensemble))
        for step in training
    ]  # fmt: skip
    exact = sampler.samples(Truth(truth.clean).score, f"{name} exact")
    parts.append(sampler.rows(exact, learner="exact score", seed=sets.seeds))
    noises = [derive(cell.seed, name, "true", int(seed)) for seed in sets.seeds]
    true = [truth.smoothed.sample(cell.samples, generator=noise) for noise in noises]
    parts.append(sampler.rows(torch.stack(true), learner="true samples", seed=sets.seeds))
    return pd.concat(parts, ignore_index=True)


@dataclass(frozen=True)
class Sampler:
    """The reverse diffusion of a cell from the largest of some noise levels, and measurements."""

    cell: SamplerCell
    truth: Instance
    levels: list[float]

    def samples(self, score: NoisyScore, name: str, networks: int = 0) -> Tensor:
        """Returns samples with shape (E, n, d) of E networks, or of one score for every set."""
        noise = derive(self.cell.seed, name, "samples", self.cell.first)
        count, size = networks or self.cell.count, self.cell.size
        parts = []
        for rows in torch.arange(self.cell.samples).split(CHUNK):
            shape = (count, len(rows), size) if networks else (count * len(rows), size)
            x = reverse_sde(
                score, shape, self.truth.clean.means, levels=self.levels, generator=noise
            )
            parts.append(x.view(count, len(rows), size))
        return torch.cat(parts, 1)

    def errors(self, ensemble: RectifiedDenoisers) -> dict[str, Tensor]:
        """Returns the errors at the least noise, and those over all levels."""
        delta, by_level = DELTAS[-1], []
        for sigma in self.levels:
            level = Instance(self.truth.clean, sigma)
            test = level.stratified(TEST, generator=derive(self.cell.seed, "test"))
            gaps = ensemble.score(test.noisy, sigma) - level.smoothed.score(test.noisy)
            deltas = (*DELTAS, delta / len(self.levels))
            by_level.append(errors.summary(sigma * gaps.norm(dim=-1), test, deltas))
        return by_level[-1] | errors.over_levels(by_level, delta)

    def rows(self, x: Tensor, **columns: Any) -> pd.DataFrame:  # noqa: ANN401
        """Returns a row for each of E samples with shape (E, n, d), with their distances."""
        clean = self.truth.clean
        double = (clean.weights.double(), clean.means.double(), clean.covariances.double())
        exact = type(clean)(*double).smoothed(self.truth.sigma)
        noise = derive(self.cell.seed, "slices")
        distances = [mixture_distances.distances(rows, exact, generator=noise) for rows in x]
        return frame({
            "panel": "samplers", "ratio": self.cell.ratio, "size": self.cell.size,
            "eta": worst_eta(self.cell.ratio, EPSILON), **columns, **pd.DataFrame(distances),
        })  # fmt: skip
