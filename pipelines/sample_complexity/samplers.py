"""What the reverse diffusion makes of learnt scores, beside exact scores and true samples."""

from functools import partial
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from ebflow.complexity import errors, laws
from ebflow.complexity.closed_forms import worst_eta
from ebflow.complexity.denoisers import Denoisers, looks
from ebflow.complexity.instances import Instance, far_mode
from ebflow.complexity.laws import Distances
from ebflow.complexity.samplers import Scores, ladder, reverse_sde
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.columns import over_levels, share, table
from pipelines.sample_complexity.config import SamplerCell
from pipelines.sample_complexity.networks import TEST, Sets, untrained

WIDEST = 2.0
"""The largest noise, in units of R."""

TOGETHER = 500
"""Samples of each network that are drawn at once."""


def samplers(cell: SamplerCell) -> pa.Table:
    """Returns errors of the scores, and distances of samples, after every length of training."""
    eta = worst_eta(cell.ratio, cell.epsilon)
    truth = far_mode(cell.ratio, eta, size=cell.size, dtype=torch.float32)
    seeds = torch.arange(cell.first, cell.first + cell.count)
    name = f"samplers {cell.ratio:g} {cell.size}"
    sets = Sets.drawn(truth, seeds, list(cell.sizes), seed=cell.seed, name=name)
    noise = derive(cell.seed, name, "train", cell.first)
    nets = untrained(cell, truth, sets, noise)
    training = looks(
        nets, sets.draws(noise), lengths=cell.lengths, least=truth.sigma,
        highest=WIDEST * cell.ratio * truth.sigma, rows=cell.batch,
    )  # fmt: skip
    learnt = {"m": sets.sizes, "seed": seeds[sets.owner], "n_far": sets.n_far}
    rows, drawn = partial(_rows, cell, truth, eta), partial(_samples, cell, truth)
    parts = [
        rows(drawn(nets.at, (len(sets.owner),), name), learner="networks", sampler="reverse SDE",
             step=step, **learnt, **_errors(cell, truth, nets))
        for step in training
    ]  # fmt: skip
    exact = drawn(truth.clean.smoothed, (), f"{name} exact")
    parts.append(rows(exact, learner="exact score", sampler="reverse SDE", seed=seeds))
    true = _true(cell, seeds, truth, name)
    parts.append(rows(true, learner="true samples", sampler="none", seed=seeds))
    return pa.concat_tables(parts, promote_options="default")


def _rows(
    cell: SamplerCell, truth: Instance, eta: float, x: Tensor, **columns: Any,  # noqa: ANN401
) -> pa.Table:  # fmt: skip
    """Returns a row for each of the samples with shape (E, n, d), with their distances."""
    return table(
        len(x), panel="samplers", ratio=cell.ratio, size=cell.size, epsilon=cell.epsilon, eta=eta,
        **columns, **_distances(cell, x, truth),
    )  # fmt: skip


def _errors(cell: SamplerCell, truth: Instance, nets: Denoisers) -> dict[str, Tensor]:
    """Returns the errors at the least noise, and those over all levels."""
    levels, found = _levels(cell, truth), []
    delta = cell.deltas[-1]
    rare = share(delta, len(levels))
    for sigma in levels:
        level = Instance(truth.clean, sigma)
        test = level.stratified(TEST, generator=derive(cell.seed, "test"))
        sizes = errors.distances(nets.at(sigma), level.smoothed, test.noisy)
        found.append(errors.summary(sizes, test, sigma, (*cell.deltas, rare)))
    last = {name: value for name, value in found[-1].items() if name != f"sigma_d_{rare:g}"}
    return last | over_levels(found, delta)


def _levels(cell: SamplerCell, truth: Instance) -> list[float]:
    return ladder(WIDEST * cell.ratio * truth.sigma, truth.sigma, cell.levels)


def _samples(
    cell: SamplerCell, truth: Instance, scores: Scores, learners: tuple[int, ...], name: str
) -> Tensor:
    """Returns samples with shape (E, samples, d) of E ``learners``, or, of one, for every set."""
    levels, noise = _levels(cell, truth), derive(cell.seed, name, "samples", cell.first)
    count = learners[0] if learners else cell.count
    parts = []
    for rows in torch.arange(cell.samples).split(TOGETHER):
        shape = (*learners, len(rows)) if learners else (count * len(rows),)
        x = reverse_sde(
            scores, (*shape, cell.size), truth.clean.means, levels=levels, generator=noise
        )
        parts.append(x.view(count, len(rows), cell.size))
    return torch.cat(parts, 1)


def _true(cell: SamplerCell, seeds: Tensor, truth: Instance, name: str) -> Tensor:
    noises = (derive(cell.seed, name, "true", int(seed)) for seed in seeds)
    return torch.stack([truth.smoothed.sample(cell.samples, generator=noise) for noise in noises])


def _distances(cell: SamplerCell, x: Tensor, truth: Instance) -> dict[str, list[float]]:
    """Returns the distances of samples with shape (E, n, d), column by column."""
    clean = truth.clean
    law = type(clean)(clean.weights.double(), clean.means.double(), clean.covariances.double())
    law = law.smoothed(truth.sigma)
    noise = derive(cell.seed, "slices")
    found = [laws.distances(rows, law, generator=noise) for rows in x]
    return dict(zip(Distances._fields, map(list, zip(*found, strict=True)), strict=True))
