"""Networks trained by denoising score matching, at every m and many seeds at once."""

import pandas as pd
import torch
from torch import Tensor

from ebflow.complexity import errors
from ebflow.complexity.closed_forms import worst_eta
from ebflow.complexity.instances import Instance, far_mode
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.config import LearnerCell, NetworkCell
from pipelines.sample_complexity.ensembles import Denoisers, fit
from pipelines.sample_complexity.rows import frame, geometric
from pipelines.sample_complexity.training_sets import TrainingSets

FIRST, RATIO, REACH = 7, 2.0, 3.0
"""The grid of m: from 7 on, doubled each time, to 3 over the far mode's weight.

With R/σ in powers of 2, log 2/η, where half of the sets have a far sample, lies at the same place
between two of its points.
"""

TOGETHER = 40
"""About as many networks train at once: their activations stay in the cache."""

TEST = 2000
"""Test points of each component."""


def networks(cell: NetworkCell) -> pd.DataFrame:
    """Returns the errors of every network, a few seeds at a time."""
    sizes = geometric(FIRST, REACH / worst_eta(cell.ratio, cell.epsilon), RATIO)
    seeds = torch.arange(cell.first, cell.first + cell.count)
    groups = seeds.split(max(1, TOGETHER // len(sizes)))
    return pd.concat([_group(cell, sizes, group) for group in groups], ignore_index=True)


def drawn(
    cell: LearnerCell, truth: Instance, seeds: Tensor, sizes: list[int], name: str, *, once: bool
) -> TrainingSets:
    """Draws a training set for each of ``seeds``, with one noise a sample or always a new one."""

    def draw(index: int) -> tuple[Tensor, ...]:
        noise = derive(cell.seed, name, index)
        clean, z, component = truth.sample(max(sizes), generator=noise)
        return (clean, component > 0, *([z] if once else []))

    return TrainingSets.drawn(draw, seeds, sizes)


def untrained(
    cell: LearnerCell, truth: Instance, sets: TrainingSets, generator: torch.Generator
) -> Denoisers:
    """Returns a network for each set and m."""
    return Denoisers(
        len(sets.owner), cell.size, radius=cell.ratio * truth.sigma, width=cell.width,
        depth=cell.depth, generator=generator,
    )  # fmt: skip


def _group(cell: NetworkCell, sizes: list[int], seeds: Tensor) -> pd.DataFrame:
    eta = cell.rarity * worst_eta(cell.ratio, cell.epsilon)
    truth = far_mode(cell.ratio, eta, size=cell.size, dtype=torch.float32)
    name = f"networks {cell.ratio:g} {cell.size}"
    sets = drawn(cell, truth, seeds, sizes, name, once=cell.noise == "once")
    noise = derive(cell.seed, name, cell.noise, cell.panel, "train", int(seeds[0]))
    nets = untrained(cell, truth, sets, noise)
    fit(nets, sets, generator=noise, least=truth.sigma, steps=cell.steps, rows=cell.batch)
    test = truth.stratified(TEST, generator=derive(cell.seed, "test"))
    gaps = nets.score(test.noisy, truth.sigma) - truth.smoothed.score(test.noisy)
    return frame({
        "panel": cell.panel, "learner": f"networks, noise {cell.noise}",
        "ratio": cell.ratio, "size": cell.size, "width": cell.width, "depth": cell.depth,
        "rarity": cell.rarity, "epsilon": cell.epsilon, "eta": eta, **sets.columns,
        **errors.summary(truth.sigma * gaps.norm(dim=-1), test, cell.deltas),
    })  # fmt: skip
