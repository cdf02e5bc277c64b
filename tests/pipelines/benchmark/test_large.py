"""One training step of nets of the size they are meant for; of dense ones in bounded memory.

A dense net of images 3×64×64 has two weights of 604 MB, and as much again of gradients and twice
as much of Adam's moments: 4.5 GiB. Each process below reports the most that it has held.
"""

import math
import os
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from ebflow.anchor import Anchor
from ebflow.architectures import dense, glow
from pipelines.paper.timing import training_steps
from tests.library.bijections.cases import seeded, stirred

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BATCH = 10
BOUND = 12 * 2**30
UNIT = 1 if sys.platform == "darwin" else 1024

# Objectives of one flow, one after another in one process
STEPS = {
    "no determinant": ["ssm", "ssm_vr", "fd_ssm", "taylor_sm", "relative_ml"],
    "one refresh": ["lazy_ml", "dsm + anchor", "ssm + anchor"],
    "determinants": ["ml"],
    "samples": ["sml"],
}

IMAGES = ["dsm", "ssm", "ssm_vr", "fd_ssm", "taylor_sm", "ml", "lazy_ml"]  # Objectives of Glow


def moved(flow, labels, batch):
    """Does steps; checks that loss and gradients are finite and that every parameter moves."""
    for step in training_steps(flow, labels, batch, Anchor(flow)).values():
        moves(flow, step)


def moves(flow, step):
    samples = [p.detach().flatten()[-1000:].clone() for p in flow.parameters()]
    assert math.isfinite(step())
    for parameter, before in zip(flow.parameters(), samples, strict=True):
        assert 0 < float(parameter.grad.norm()) < math.inf
        assert not torch.equal(parameter.detach().flatten()[-1000:], before)


def memory_of(labels):
    """Does a step of each objective, and returns the most memory that this process has held.

    A step by ``dsm`` comes first, so that each of them finds Adam's moments in memory.
    """
    torch.set_num_threads(os.cpu_count())
    moved(dense((3 * 64 * 64,), noise=0.1, generator=seeded()), ("dsm", *labels), BATCH)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


@pytest.mark.parametrize("name", STEPS)
def test_a_dense_step_at_12288_in_12_gib(name):
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(memory_of, STEPS[name]).result() < BOUND


@pytest.mark.parametrize("objective", IMAGES)
def test_a_step_of_glow(objective):
    flow = glow((1, 28, 28), generator=seeded())
    flow.initialize(torch.randn(16, 1, 28, 28, generator=seeded(1)))
    moved(stirred(flow, 0.01), [objective], 4)
