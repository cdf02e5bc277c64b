"""zuko's masked autoregressive flows, affine (MAF) and rational-quadratic (NSF).

The sizes are those of zuko's README. Training is Adam at a constant rate; the best weights by
validation are kept.
"""

import copy
import math
import time
from collections.abc import Iterator

import torch
import zuko
from torch import Tensor

from ebflow.errors import NonFinite
from ebflow.randomness import generator
from pipelines.paper.config import PeerConfig
from pipelines.paper.peers.behind import Behind, Fitted, Point, Values

KINDS = {"maf": zuko.flows.MAF, "nsf": zuko.flows.NSF}
SIZES = {"transforms": 3, "hidden_features": (128, 128, 128)}
LARGEST = 100
"""The most elements of a row: they are for tables."""

VALIDATIONS = 20
"""Validations of a training that is bounded by time."""

EVERY = 100
"""Steps between them, of one that is bounded by steps alone."""


def fit(config: PeerConfig, data: Behind) -> Fitted | None:
    """Returns a trained flow; None of rows of more than ``LARGEST`` elements.

    Raises:
        NonFinite: if a loss is infinite or NaN.
    """
    if data.width > LARGEST:
        return None
    flow = _made(config, data.width)
    fitted = Fitted(_values(flow), f"zuko {config.name.upper()}, {SIZES}, Adam {config.lr:g}, "
                    f"batch {config.batch_size}, best by validation")  # fmt: skip
    best = math.inf
    for point in _trained(config, flow, data):
        fitted.curve.append(point)
        if point.nll < best:
            best, kept = point.nll, copy.deepcopy(flow.state_dict())
    flow.load_state_dict(kept)
    return fitted


def _made(config: PeerConfig, width: int) -> zuko.flows.Flow:
    """Returns an untrained flow; zuko draws weights from PyTorch's global state."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(generator(config.seed, "peer", config.name).initial_seed())
        return KINDS[config.name](width, **SIZES)


def _values(flow: zuko.flows.Flow) -> Values:
    @torch.no_grad()
    def values(x: Tensor) -> Tensor:
        return flow().log_prob(x.float())

    return values


def _trained(config: PeerConfig, flow: zuko.flows.Flow, data: Behind) -> Iterator[Point]:
    """Trains; yields where it stands at every validation, the untrained flow's included."""
    optimizer = torch.optim.Adam(flow.parameters(), lr=config.lr)
    values, limit = _values(flow), config.seconds or math.inf
    spent, due = 0.0, 0.0
    batches = data.batches(config.batch_size, config.seed)
    for step in range(config.steps + 1):
        over = spent >= limit or step == config.steps
        if over or (spent >= due if config.seconds else step % EVERY == 0):
            yield Point(step, spent, data.nll(values))
            due += limit / VALIDATIONS
        if over:
            return
        began = time.perf_counter()
        loss = -flow().log_prob(next(batches)).mean()
        if not loss.isfinite():
            raise NonFinite(f"{config.name}: step {step}: found a loss of {float(loss.detach())}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        spent += time.perf_counter() - began
