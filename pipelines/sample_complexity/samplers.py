"""What the reverse diffusion makes of learnt scores, beside exact scores and true samples."""

from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ebflow.complexity import errors, mixture_distances
from ebflow.complexity.closed_forms import worst_eta
from ebflow.complexity.instances import Instance, far_mode
from ebflow.complexity.samplers import NoisyScore, ladder, reverse_sde
from ebflow.complexity.truths import Truth
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.config import SamplerCell
from pipelines.sample_complexity.ensembles import Denoisers, train_in_parts
from pipelines.sample_complexity.networks import TEST, drawn, untrained
from pipelines.sample_complexity.rows import frame

WIDEST = 2.0
"""The largest noise, in units of R."""

TOGETHER = 500
"""Samples of each network that are drawn at once."""


def samplers(cell: SamplerCell) -> pd.DataFrame:
    """Returns errors of the scores, and distances of samples, after every length of training."""
    truth, levels = _law(cell)
    seeds = torch.arange(cell.first, cell.first + cell.count)
    name = f"samplers {cell.ratio:g} {cell.size}"
    sets = drawn(cell, truth, seeds, list(cell.sizes), name, once=False)
    noise = derive(cell.seed, name, "train", cell.first)
    nets = untrained(cell, truth, sets, noise)
    training = train_in_parts(
        nets, sets, generator=noise, lengths=cell.lengths, least=truth.sigma, highest=levels[0],
        rows=cell.batch,
    )  # fmt: skip
    rows, taken = partial(_rows, cell), partial(_samples, cell)
    parts = [
        rows(taken(nets.score, (nets.count,), name), learner="networks", step=step,
             **sets.columns, **_errors(cell, nets))
        for step in training
    ]  # fmt: skip
    exact = taken(Truth(truth.clean).score, (), f"{name} exact")
    parts.append(rows(exact, learner="exact score", seed=seeds))
    noises = [derive(cell.seed, name, "true", int(seed)) for seed in seeds]
    true = [truth.smoothed.sample(cell.samples, generator=noise) for noise in noises]
    parts.append(rows(torch.stack(true), learner="true samples", seed=seeds))
    return pd.concat(parts, ignore_index=True)


def _law(cell: SamplerCell) -> tuple[Instance, list[float]]:
    """Returns the law, and the noises of the sampler, the largest first."""
    eta = worst_eta(cell.ratio, cell.epsilon)
    truth = far_mode(cell.ratio, eta, size=cell.size, dtype=torch.float32)
    return truth, ladder(WIDEST * cell.ratio * truth.sigma, truth.sigma, cell.levels)


def _rows(cell: SamplerCell, x: Tensor, **columns: Any) -> pd.DataFrame:  # noqa: ANN401
    """Returns a row for each of the samples with shape (E, n, d), with their distances."""
    truth, _ = _law(cell)
    clean = truth.clean
    law = type(clean)(clean.weights.double(), clean.means.double(), clean.covariances.double())
    law = law.smoothed(truth.sigma)
    noise = derive(cell.seed, "slices")
    found = pd.DataFrame([mixture_distances.distances(rows, law, generator=noise) for rows in x])
    return frame({
        "panel": "samplers", "ratio": cell.ratio, "size": cell.size, "epsilon": cell.epsilon,
        "eta": worst_eta(cell.ratio, cell.epsilon), **columns, **found,
    })  # fmt: skip


def _errors(cell: SamplerCell, nets: Denoisers) -> dict[str, Tensor]:
    """Returns the errors at the least noise, and those over all levels."""
    truth, levels = _law(cell)
    delta, found = cell.deltas[-1], []
    for sigma in levels:
        level = Instance(truth.clean, sigma)
        test = level.stratified(TEST, generator=derive(cell.seed, "test"))
        gaps = nets.score(test.noisy, sigma) - level.smoothed.score(test.noisy)
        deltas = (*cell.deltas, delta / len(levels))
        found.append(errors.summary(sigma * gaps.norm(dim=-1), test, deltas))
    return found[-1] | errors.over_levels(found, delta)


def _samples(cell: SamplerCell, score: NoisyScore, learners: tuple[int, ...], name: str) -> Tensor:
    """Returns samples with shape (E, samples, d) of E ``learners``, or, of one, for every set."""
    truth, levels = _law(cell)
    noise = derive(cell.seed, name, "samples", cell.first)
    count = learners[0] if learners else cell.count
    parts = []
    for rows in torch.arange(cell.samples).split(TOGETHER):
        shape = (*learners, len(rows)) if learners else (count * len(rows),)
        x = reverse_sde(
            score, (*shape, cell.size), truth.clean.means, levels=levels, generator=noise
        )
        parts.append(x.view(count, len(rows), cell.size))
    return torch.cat(parts, 1)
