"""Optimizers without PyTorch's compiler: the same steps, and nothing of it is imported."""

import subprocess
import sys

import pytest
import torch

from ebflow.optimizers import eager

KINDS = {"Adam": {"fused": True}, "AdamW": {"fused": True}, "RMSprop": {}, "SGD": {"fused": True},
         "LBFGS": {"max_iter": 5}}  # fmt: skip


def trained(kind, **options):
    """Returns weights and state after steps on a quadratic, one of them after a resumption."""
    weights = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    optimizer = kind([weights], lr=0.1, **options)

    def closure():
        optimizer.zero_grad()
        loss = (weights.sin() + weights.square()).sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    resumed = kind([weights], lr=0.5, **options)
    resumed.load_state_dict(optimizer.state_dict())
    optimizer = resumed
    optimizer.step(closure)
    return weights.detach(), optimizer.state_dict()["param_groups"]


@pytest.mark.parametrize("name", KINDS)
def test_steps_are_the_same_to_the_bit(name):
    kind = getattr(torch.optim, name)
    for _ in range(2):  # an instance that is made changes its class
        (ours, groups), (theirs, expected) = trained(eager(kind)), trained(kind)
        assert ours.equal(theirs) and groups == expected
        ours, theirs = trained(eager(kind), **KINDS[name]), trained(kind, **KINDS[name])
        assert ours[0].equal(theirs[0]) and ours[1] == theirs[1]


FIT = """
import sys, torch, ebflow
x = torch.randn(300, 3, dtype=torch.float64).exp().numpy()
flow = ebflow.fit(x, architecture="coupling", steps=3)
flow.log_prob(torch.tensor(x))
flow.sample(3)
print(*sorted({"torch._dynamo"} & set(sys.modules)))
"""


def test_a_fit_imports_no_compiler():
    done = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
