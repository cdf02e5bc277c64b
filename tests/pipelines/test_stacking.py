"""Trainings of many nets at once are those of each alone."""

from functools import partial

import pytest
import torch

from ebflow import objectives
from ebflow.architectures import dense
from ebflow.loss import Loss, LossModule, Progress, cosine
from ebflow.randomness import RowGenerator
from pipelines.paper.stack import DECAY, Member, Stack
from tests.library.conftest import double_precision  # noqa: F401

STEPS = 12
OBJECTIVES = {
    "dsm": partial(objectives.dsm, sigma=0.3),
    "ssm": objectives.ssm,
    "ssm_vr": objectives.ssm_vr,
}


def member(activation, sign, bias, rate, batch=0):
    flow = dense((5,), activation=activation, sign=sign, bias=bias, dtype=torch.float64)
    return Member(flow, rate, batch)


def members(activation):
    """Their rates are not in order."""
    return [
        member(activation, 1, 0.5, 1e-2, batch=0),
        member(activation, -1, 1.0, 1e-3, batch=1),
        member(activation, 1, 0.0, 1e-2, batch=1),
    ]


def batches():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(STEPS, 2, 9, 5, generator=generator, dtype=torch.float64)


def noise(step):
    return RowGenerator(0, "step", step)


def stacked(members, objective, rows):
    stack = Stack(members, objective, steps=STEPS)
    losses = [stack.train_step(rows[k], noise(k)) for k in range(STEPS)]
    return list(stack.flows()), losses[-1]


def alone(member, objective, rows):
    """One training as a loop of PyTorch: the averaged weights, and the last loss."""
    module = LossModule(member.flow, Loss(objective))
    optimizer = torch.optim.Adam(module.parameters())
    average = [p.detach().clone() for p in module.parameters()]
    for k in range(STEPS):
        optimizer.param_groups[0]["lr"] = member.rate * cosine(k / STEPS)
        optimizer.zero_grad()
        loss = module(rows[k, member.batch], None, noise(k), Progress(k, k / STEPS))[0].mean()
        loss.backward()
        optimizer.step()
        for kept, now in zip(average, module.parameters(), strict=True):
            kept.lerp_(now.detach(), 1 - min(DECAY, (1 + k) / (10 + k)))
    return average, loss.detach()


@pytest.mark.parametrize("activation", ["smooth_leaky_relu", "spline"])
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_every_net_is_trained_as_if_it_were_alone(activation, objective):
    flows, losses = stacked(members(activation), objective, batches())
    for flow, loss, one in zip(flows, losses, members(activation), strict=True):
        weights, last = alone(one, objective, batches())
        torch.testing.assert_close(loss, last, rtol=1e-7, atol=0)
        for found, expected in zip(flow.parameters(), weights, strict=True):
            torch.testing.assert_close(found.detach(), expected, rtol=1e-6, atol=1e-8)


def test_a_net_that_breaks_changes_no_other():
    rows = batches()
    rows[3, 0] = torch.inf
    flows, losses = stacked(members("smooth_leaky_relu"), OBJECTIVES["dsm"], rows)
    assert losses.isfinite().tolist() == [False, True, True]
    whole, _ = stacked(members("smooth_leaky_relu"), OBJECTIVES["dsm"], batches())
    for found, expected in zip(flows[1:], whole[1:], strict=True):
        assert torch.equal(found.layers[0].weight, expected.layers[0].weight)


def test_the_members_own_flows_stay_as_they_were():
    nets = members("spline")
    before = nets[0].flow.layers[0].weight.clone()
    stacked(nets, OBJECTIVES["dsm"], batches())
    assert torch.equal(nets[0].flow.layers[0].weight, before)
