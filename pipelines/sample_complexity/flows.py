"""Densities with an exact normaliser: how far they are off in nats, for every objective."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from ebflow import architectures, objectives
from ebflow.bases import GaussianMixture
from ebflow.complexity import errors, laws
from ebflow.complexity.closed_forms import worst_eta
from ebflow.complexity.flows import (
    Batches,
    Pairs,
    endless,
    fit,
    line_divergence,
    pair_truth,
    some,
    whole,
)
from ebflow.complexity.instances import Instance, Stratified, far_mode, gaussian, ring
from ebflow.evaluation import Normalised
from ebflow.flow import Flow
from ebflow.randomness import generator as derive
from pipelines.sample_complexity.columns import table
from pipelines.sample_complexity.config import FloorCell, FlowCell, PairCell, Target, TargetCell

OBJECTIVES = {
    "ml": objectives.ml,
    "ism": objectives.exact_sm,
    "ssm": objectives.ssm,
    "dsm0.3": partial(objectives.dsm, sigma=0.3, antithetic=True),
    "dsm1": partial(objectives.dsm, sigma=1.0, antithetic=True),
}
"""On the line ``ism`` is ``ssm`` with signs for slices."""

NOISES = {"dsm0.3": 0.3, "dsm1": 1.0}
"""The σ of the law that an objective learns; none: the law itself."""

TEST = 4000
"""Test points of all components, for divergences in the plane."""

ENDLESS = 1024
"""Samples a step of two Gaussians that see each sample once."""

BATCH = 256
"""Samples a step of a flow in the plane."""


def pairs(cell: PairCell) -> pa.Table:
    """Returns the divergences of two Gaussians fitted to samples of such a law."""
    parts = [_pair(cell, m) for m in cell.sizes]
    return pa.concat_tables(parts, promote_options="default")


def _pair(cell: PairCell, m: int | None) -> pa.Table:
    law, sigma = pair_truth(cell.a, cell.w), NOISES.get(cell.objective, 0.0)
    noise = derive(cell.seed, "pairs", f"{cell.a:g}", str(m), cell.first)
    x = law.sample(cell.count * m, generator=noise) if m else None
    found = Pairs((cell.a, -cell.a), cell.count)
    fit(
        found, _batches(law, x, None, noise, cell.count), OBJECTIVES[cell.objective],
        generator=noise, steps=cell.steps, lr=0.05,
    )  # fmt: skip
    smooth = law.smoothed(sigma)
    return table(
        cell.count, panel="pairs", learner=cell.objective, a=cell.a, size=1, m=m,
        seed=torch.arange(cell.first, cell.first + cell.count),
        kl=line_divergence(law, found, cell.count),
        kl_smoothed=line_divergence(smooth, found, cell.count),
        kl_floor=float(line_divergence(law, smooth)), theta=found.logit,
    )  # fmt: skip


def _batches(
    law: GaussianMixture, x: Tensor | None, rows: int | None, noise: torch.Generator, count: int
) -> Batches:
    """Returns the samples of a step, of ``x`` with shape (count m, D); None: all are new."""
    if x is None:
        return endless(law, count, rows or ENDLESS, generator=noise)
    x = x.view(count, -1, law.size)
    return whole(x) if rows is None else some(x, min(rows, x.shape[1]), generator=noise)


class Task(NamedTuple):
    """What a flow in the plane is to learn.

    Attributes:
        truth: From a cell to the law.
        flow: From the generator of its weights to a flow.
        lr: The rate of its training.
        rows: Samples a step; None: all.
    """

    truth: Callable[[TargetCell], Instance]
    flow: Callable[[torch.Generator], Flow]
    lr: float
    rows: int | None


def _linear(noise: torch.Generator) -> Flow:
    """A Gaussian: five parameters that count."""
    return architectures.dense((2,), depth=1, dtype=torch.float64)


def _coupled(noise: torch.Generator) -> Flow:
    return architectures.coupling(
        (2,), depth=4, hidden=32, bound=2.0, generator=noise, dtype=torch.float64
    )


def _far(cell: TargetCell) -> Instance:
    return far_mode(cell.ratio, worst_eta(cell.ratio, cell.epsilon), size=2)


TASKS: dict[Target, Task] = {
    "gaussian": Task(lambda cell: gaussian(2, sigma=0.0, tau=1.0), _linear, 0.05, None),
    "far mode": Task(_far, _coupled, 5e-3, BATCH),
    "eight Gaussians": Task(lambda cell: ring(8), _coupled, 5e-3, BATCH),
}
"""By the name of the law."""


def flows(cell: FlowCell) -> pa.Table:
    """Returns divergences, errors of the score and distances of exact samples of flows."""
    seeds = range(cell.first, cell.first + cell.count)
    parts = [_flow(cell, m, seed) for m in cell.sizes for seed in seeds]
    return pa.concat_tables(parts, promote_options="default")


def _flow(cell: FlowCell, m: int | None, seed: int) -> pa.Table:
    task = TASKS[cell.target]
    law = task.truth(cell).smoothed
    noise = derive(cell.seed, "flows", cell.target, str(m), seed)
    flow = task.flow(derive(cell.seed, "flow", seed))
    x, component = law.sample_with_components(m, generator=noise) if m else (None, None)
    fit(
        flow, _batches(law, x, task.rows, noise, 1), OBJECTIVES[cell.objective], generator=noise,
        steps=cell.steps, lr=task.lr,
    )  # fmt: skip
    flow.eval()
    samples = flow.sample(cell.samples, generator=noise).detach()
    return table(
        1, **_named(cell), learner=cell.objective, sampler="exact inverse", m=m, seed=seed,
        n_far=int((component > 0).sum()) if m and cell.ratio else None,
        **_measured(cell, law, flow), **_distances(cell, samples, law),
    )  # fmt: skip


def floors(cell: FloorCell) -> pa.Table:
    """Returns the distances of true samples, which no flow can be nearer than."""
    law = TASKS[cell.target].truth(cell).smoothed
    noise = derive(cell.seed, "floors", cell.target)
    parts = [
        table(
            1, **_named(cell), learner="true samples", sampler="none", seed=seed,
            **_distances(cell, law.sample(cell.samples, generator=noise), law),
        )
        for seed in range(cell.first, cell.first + cell.count)
    ]  # fmt: skip
    return pa.concat_tables(parts)


def _named(cell: TargetCell) -> dict[str, str | float | None]:
    """Returns the columns that tell a law from others."""
    eta = worst_eta(cell.ratio, cell.epsilon) if cell.ratio else None
    return {"panel": "flows", "target": cell.target, "ratio": cell.ratio, "size": 2,
            "epsilon": cell.epsilon, "eta": eta}  # fmt: skip


def _distances(cell: TargetCell, samples: Tensor, law: GaussianMixture) -> dict[str, list[float]]:
    found = laws.distances(samples, law, generator=derive(cell.seed, "slices"))
    return {name: [value] for name, value in found._asdict().items()}


def _measured(cell: FlowCell, law: GaussianMixture, flow: Flow) -> dict[str, Tensor]:
    """Returns divergences from the law, and from the one that the objective learns; errors.

    The errors are those of the score of what is learnt, times the noise of a far mode, else 1.
    """
    learnt = Instance(law, NOISES.get(cell.objective, 0.0))
    each = TEST // len(law.weights)
    test = learnt.stratified(each, generator=derive(cell.seed, "test"))
    found = errors.distances(flow, learnt.smoothed, test.noisy).detach()
    scale = TASKS[cell.target].truth(cell).sigma or 1.0
    measures = {
        "kl": _divergence(law, flow, test.clean, test),
        "kl_smoothed": _divergence(learnt.smoothed, flow, test.noisy, test),
        "kl_floor": _divergence(law, learnt.smoothed, test.clean, test),
        **errors.summary(found, test, scale, cell.deltas),
    }
    return {name: value[None] for name, value in measures.items()}


@torch.no_grad()
def _divergence(law: GaussianMixture, model: Normalised, x: Tensor, test: Stratified) -> Tensor:
    """Returns KL(law ‖ model) in nats over test points."""
    return test.weights @ (law.log_prob(x) - model.log_prob(x))
