"""Densities with an exact normaliser: how far they are off in nats, for every objective."""

__all__ = ["flows", "pairs"]

from functools import partial

import pyarrow as pa
import torch
from torch import Tensor

from ebflow import architectures, objectives
from ebflow.complexity import errors, laws
from ebflow.complexity.closed_forms import worst_eta
from ebflow.complexity.flows import Pairs, fit, line_divergence, pair_truth
from ebflow.complexity.instances import Instance, Stratified, far_mode, gaussian
from ebflow.complexity.laws import Distances
from ebflow.flow import Flow
from ebflow.randomness import generator as derive
from pipelines.complexity.columns import table
from pipelines.complexity.config import FlowCell, PairCell

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
"""Test points of each component, for divergences in the plane."""

BATCH, LR = 256, 5e-3
"""Of the flow on the far mode."""


def pairs(cell: PairCell) -> pa.Table:
    """Returns the divergences of two Gaussians fitted to samples of such a law."""
    law, sigma = pair_truth(cell.a, cell.w), NOISES.get(cell.objective, 0.0)
    smooth = law.smoothed(sigma)
    parts = []
    for m in cell.sizes:
        noise = derive(cell.seed, "pairs", f"{cell.a:g}", m, cell.first)
        x = law.sample(cell.count * m, generator=noise).view(cell.count, m, 1)
        found = Pairs((cell.a, -cell.a), cell.count)
        fit(found, x, OBJECTIVES[cell.objective], generator=noise, steps=cell.steps, lr=0.05)
        parts.append(
            table(
                cell.count,
                panel="pairs",
                learner=cell.objective,
                a=cell.a,
                size=1,
                m=m,
                seed=torch.arange(cell.first, cell.first + cell.count),
                kl=line_divergence(law, found, cell.count),
                kl_smoothed=line_divergence(smooth, found, cell.count),
                kl_floor=float(line_divergence(law, smooth)),
                theta=found.logit,
            )  # fmt: skip
        )
    return pa.concat_tables(parts)


def flows(cell: FlowCell) -> pa.Table:
    """Returns divergences, errors of the score and distances of exact samples of flows."""
    truth, make = _target(cell)
    test = truth.stratified(TEST, generator=derive(cell.seed, "test"))
    parts = [
        _flow(cell, truth, make(cell, seed), test, m, seed)
        for m in cell.sizes
        for seed in range(cell.first, cell.first + cell.count)
    ]
    return pa.concat_tables(parts)


def _target(cell: FlowCell) -> tuple[Instance, type]:
    """Returns the law, learnt as it is, and what makes a flow for it."""
    if cell.ratio is None:
        return gaussian(2, sigma=0.0, tau=1.0), _linear
    return far_mode(cell.ratio, worst_eta(cell.ratio, cell.epsilon), size=2), _coupled


def _linear(cell: FlowCell, seed: int) -> Flow:
    """A Gaussian: five parameters that count."""
    return architectures.dense((2,), depth=1, dtype=torch.float64)


def _coupled(cell: FlowCell, seed: int) -> Flow:
    noise = derive(cell.seed, "flow", seed)
    return architectures.planar(
        (2,), depth=4, hidden=32, bound=2.0, generator=noise, dtype=torch.float64
    )


def _flow(
    cell: FlowCell, truth: Instance, flow: Flow, test: Stratified, m: int, seed: int
) -> pa.Table:
    noise = derive(cell.seed, "flows", f"{cell.ratio}", m, seed)
    x, component = truth.smoothed.draw(m, generator=noise)
    told = {"lr": 0.05} if cell.ratio is None else {"rows": min(BATCH, m), "lr": LR}
    fit(flow, x[None], OBJECTIVES[cell.objective], generator=noise, steps=cell.steps, **told)
    flow.eval()
    sigma = NOISES.get(cell.objective, 0.0)
    found = errors.distances(flow, truth.smoothed.smoothed(sigma), test.noisy)
    samples = flow.sample(cell.samples, generator=noise).detach()
    far = laws.distances(samples, truth.smoothed, generator=derive(cell.seed, "slices"))
    scale = truth.sigma or 1.0
    told = errors.summary(found.detach(), test, scale, cell.deltas)
    return table(
        1, panel="flows", learner=cell.objective, sampler="exact inverse", ratio=cell.ratio,
        size=2, epsilon=cell.epsilon, eta=float(truth.clean.weights[1:].sum()), m=m, seed=seed,
        n_far=int((component > 0).sum()), kl=_divergence(truth, flow, test),
        **{name: value[None] for name, value in told.items()},
        **dict(zip(Distances._fields, far, strict=True)),
    )  # fmt: skip


@torch.no_grad()
def _divergence(truth: Instance, flow: Flow, test: Stratified) -> float:
    """Returns KL(p ‖ flow) in nats over the test points."""
    gaps: Tensor = truth.smoothed.log_prob(test.noisy) - flow.log_prob(test.noisy)
    return float(test.weights @ gaps)
